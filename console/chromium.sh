#!/bin/sh
# Installs Chromium where the machine has none: Playwright's own where it can be reached, otherwise Debian's package.
set -eu
cd "$(dirname "$0")"
if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then
    exit 0
fi
if timeout 120 npx playwright install --only-shell chromium >/dev/null 2>&1; then
    exit 0
fi
as_root=$([ "$(id -u)" = 0 ] || echo sudo)
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq -y --no-install-recommends chromium >/dev/null
