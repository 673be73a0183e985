#!/usr/bin/env bash
# Trains on the nodes of a Slurm job, one process a GPU; all of them share every batch.
# Usage, from the repository root, on a filesystem that all nodes see:
#   sbatch [--nodes=N --gres=gpu:G --ntasks-per-node=G ...] launch/slurm.sh \
#     --config=configs/cifar100.py --workdir=runs/cifar100
# A little before the time limit, and when the job is preempted, the run saves and is
# queued again; so it is when a process or a node is lost. After an error of its own
# (2 to 7, 1) it is not, and the job ends with that code.
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
codes=$(mktemp -d "$PWD/.slurm_codes.XXXXXX")
trap 'rm -rf "$codes"' EXIT
code=0
# All GPUs of a node are visible to each of its processes, and each takes its own.
srun --kill-on-bad-exit=0 --gpu-bind=none launch/_slurm_task.sh "$codes" \
  .venv/bin/python -m spaced_kd.main --distributed=auto "$@" || code=$?

# True for what is nobody's mistake: another process gone, a signal, a lost node.
passes_by() {
  case "$1" in 0 | 8 | 75 | 137 | 143) ;; *) return 1 ;; esac
}
# Of a process that failed by itself the others make an 8, which is higher than its own
# code and hides it from srun; the same mistake would only be made again.
for file in "$codes"/*; do
  own=$(cat "$file" 2>/dev/null) || continue
  if ! passes_by "${own:-0}"; then
    code=$own
    break
  fi
done
if [ "$code" != 0 ] && passes_by "$code" && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]
then
  echo "exit code $code: queued again, to continue from the last checkpoint" >&2
  rm -rf "$codes"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
