#!/usr/bin/env bash
# Installs the package and what its tests need into .venv and runs the tests, on CPU.
# Usage: launch/test.sh [flags of pytest, e.g. -k replay, -n 0]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

ensure_environment test
export JAX_PLATFORMS=cpu
# Two processes, a file in one of them: 325 s, against 403 s with files torn apart (their
# fixtures are made twice) and 434 s in one process (520 tests, once each, 2 busy cores).
exec .venv/bin/python -m pytest -n 2 --dist loadfile --timeout=600 "$@"
