#!/usr/bin/env bash
# Installs the package and what its documentation needs into .venv and builds the site
# into build/docs; a warning is an error. Usage: launch/docs.sh [flags of sphinx-build]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

ensure_environment docs
export JAX_PLATFORMS=cpu
# -E: pages take text from files that Sphinx does not watch.
exec .venv/bin/python -m sphinx -W --keep-going -n -E -q -b html "$@" docs build/docs
