#!/usr/bin/env bash
# Tests of this checkout on the lowest versions that pyproject.toml declares. Wants uv. VENV is the environment's folder,
# kept for the next time; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${VENV:=/var/tmp/share_jax-roots/lowest}"

command -v uv >/dev/null || { echo "error: uv: got nothing, expected it; pip install uv" >&2; exit 2; }
mkdir -p "$(dirname "$VENV")"
uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --extra test --no-header pyproject.toml -o "$VENV.txt"
[ -x "$VENV/bin/python" ] || uv venv --quiet --python 3.11 "$VENV"
VIRTUAL_ENV="$VENV" uv pip sync --quiet "$VENV.txt"
PYTHONPATH="$PWD" "$VENV/bin/python" -m pytest -n "${JOBS:-2}" --dist loadfile --no-loadscope-reorder -m "not slow and not faults" "$@"
