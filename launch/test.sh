#!/usr/bin/env bash
# Installs the package and what its tests need into .venv and runs the tests, on CPU.
# Usage: launch/test.sh [flags of pytest, e.g. -k replay, -n 0]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

ensure_environment test
export JAX_PLATFORMS=cpu
# Two processes, a file in one of them: files torn apart make their fixtures twice. The
# longest begin first (tests/conftest.py), so that neither process waits for the other.
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
  --timeout=600 "$@"
