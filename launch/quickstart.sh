#!/usr/bin/env bash
# Installs the package into .venv and trains on the digits data set; see the README.
# Usage: launch/quickstart.sh [flags of spaced_kd.main, e.g. --config.num_seeds=1]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

extras=
if [ "${JAX_PLATFORMS:-}" != cpu ]; then
  case "$(nvidia-smi -L 2>/dev/null)" in GPU*) extras=cuda12 ;; esac
fi
ensure_environment "$extras"

echo "Training a teacher and its students on 8x8 digits into runs/digits: 1 to 3 minutes" \
  "on 2 CPU cores. The same command again continues a stopped run." >&2
exec .venv/bin/python -m spaced_kd.main \
  --config=configs/digits.py --workdir=runs/digits "$@"
