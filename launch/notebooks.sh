#!/usr/bin/env bash
# Makes the .ipynb files, which Colab opens, from the .py sources in notebooks/.
# Usage: launch/notebooks.sh
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

ensure_environment test
exec .venv/bin/python -m jupytext --to ipynb --update notebooks/*.py
