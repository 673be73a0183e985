#!/usr/bin/env bash
# Started by slurm.sh: runs a command as one task, and notes its exit code for all.
# Usage: launch/_slurm_task.sh FOLDER COMMAND [ARGUMENTS]
# The code goes to FOLDER/TASK, because srun itself tells only the highest of all tasks.
set -euo pipefail
folder=$1
shift

child=
signalled=
forward() {
  signalled=1
  [ -z "$child" ] || kill "-$1" "$child" 2>/dev/null || true
}
# Slurm signals this script alone, or the command, too, which takes two at once for one.
trap 'forward TERM' TERM
"$@" &
child=$!
[ -z "$signalled" ] || forward TERM # it came before there was a child

while :; do
  signalled=
  code=0
  wait "$child" || code=$?
  [ -n "$signalled" ] || break # else the signal cut the waiting short
done
echo "$code" > "$folder/${SLURM_PROCID:-0}"
exit "$code"
