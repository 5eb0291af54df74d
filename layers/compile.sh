#!/bin/sh
# compile.sh VERSION FOLDER: write bytecode for Python VERSION (3.14, or a path to an interpreter) beside the sources.
# Without it every cold start compiles all it imports. Unchecked hashes, because Lambda sets its own file times.
set -eu
uv=${UV:-uv}
if python=$("$uv" python find --no-project "$1" 2>/dev/null); then
    PYTHONDONTWRITEBYTECODE= "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$2"
else
    echo "compile.sh: no Python $1 here (uv python install $1 gets one); the layer goes without bytecode" >&2
fi
