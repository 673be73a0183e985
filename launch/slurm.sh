#!/usr/bin/env bash
# Trains on the nodes of a Slurm job, one process a GPU; all of them share every batch.
# Usage, from the repository root, on a filesystem that all nodes see:
#   sbatch [--nodes=N --gres=gpu:G --ntasks-per-node=G ...] launch/slurm.sh \
#     --config=configs/cifar100.py --workdir=runs/cifar100
# A little before the time limit, and when the job is preempted, the run saves and is
# queued again; so it is when a process or a node is lost.
#SBATCH --job-name=spaced_kd
#SBATCH --nodes=2
#SBATCH --gres=gpu:4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# Slurm runs a copy of this file from elsewhere.
cd "${SLURM_SUBMIT_DIR:?error: start this with sbatch, from the repository root}"
. launch/_environment.sh
ensure_environment cuda12

trap '' TERM # the processes get it from Slurm, and need this script to the end
code=0
# All GPUs of a node are visible to each of its processes, and each takes its own.
srun --kill-on-bad-exit=0 --gpu-bind=none .venv/bin/python -m spaced_kd.main \
  --distributed=auto "$@" || code=$?
case "$code" in
  75 | 8 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
      echo "exit code $code: queued again, to continue from the last checkpoint" >&2
      scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit "$code"
