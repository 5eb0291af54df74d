#!/bin/sh
# compile.sh VERSION FOLDER: write bytecode for Python VERSION (3.14, or a path to an interpreter) beside the sources.
# Without it every cold start compiles all it imports, so a layer without it is not built. Unchecked hashes, because
# Lambda sets its own file times.
set -eu
uv=${UV:-uv}
find_python() {
    "$uv" python find --no-project "$1" 2>/dev/null
}
if ! find_python "$1" >/dev/null && ! "$uv" python install --quiet "$1"; then
    echo "compile.sh: the layers need bytecode of Python $1. Install it, or let uv: uv python install $1" >&2
    exit 1
fi
PYTHONDONTWRITEBYTECODE= "$(find_python "$1")" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$2"
