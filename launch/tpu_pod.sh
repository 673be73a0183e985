#!/usr/bin/env bash
# Trains on a TPU pod slice, one process a worker; all of them share every batch.
# Usage: run it on every worker at once, from a checkout on each, with a workdir on a
# filesystem that all workers mount (NFS, e.g. Filestore):
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="
#     cd spaced_kd && launch/tpu_pod.sh \
#       --config=configs/cifar100.py --workdir=/mnt/shared/runs/cifar100"
# A stopped run continues with the same command.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

ensure_environment tpu
exec .venv/bin/python -m spaced_kd.main --distributed=auto "$@"
