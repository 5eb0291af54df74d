#!/bin/sh
# compile.sh FOLDER: write bytecode beside the sources, with the interpreter RUNTIME, or without one for Lambda's Python.
# Without bytecode every cold start compiles all it imports, so a layer without it is not built. Unchecked hashes, because
# Lambda sets its own file times.
set -eu
if [ -n "${RUNTIME:-}" ]; then
    PYTHONDONTWRITEBYTECODE= exec "$RUNTIME" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1"
fi
compiler=$(dirname "$0")/../tools/bytecode
npm ci --silent --no-audit --no-fund --prefix "$compiler"
exec node "$compiler/compile.mjs" "$1"
