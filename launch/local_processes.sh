#!/usr/bin/env bash
# Trains in several processes on this machine, which share every batch.
# Usage: launch/local_processes.sh N DEVICES [flags of spaced_kd.main]
#   N        processes
#   DEVICES  cpu:M, that is M virtual CPU devices each, or gpu, that is one GPU each:
#            the first N of CUDA_VISIBLE_DEVICES where that is set
# A signal to this script goes on to all processes. The exit code is that of the process
# that ended worst: an error of its own before 8 (another process is gone) before 75.
set -euo pipefail
set -m # each process in a group of its own, so that Ctrl-C reaches it once
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. launch/_environment.sh

usage() {
  echo "error: $1; usage: launch/local_processes.sh N cpu:M|gpu [flags of" \
    "spaced_kd.main], e.g. launch/local_processes.sh 2 cpu:2" \
    "--config=configs/digits.py --workdir=runs/digits." >&2
  exit 2
}
count=${1:-} devices=${2:-}
[[ $count =~ ^[1-9][0-9]*$ ]] || usage "N='$count' is no number of processes"
case "$devices" in
  gpu) extras=cuda12 ;;
  cpu:[1-9]*) extras= ;;
  *) usage "DEVICES='$devices' is neither cpu:M nor gpu" ;;
esac
shift 2
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES:-}"
if [ "$devices" = gpu ]; then
  [ -n "${CUDA_VISIBLE_DEVICES+set}" ] || mapfile -t gpus < <(seq 0 $((count - 1)))
  [ "$count" -le "${#gpus[@]}" ] ||
    usage "CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' has fewer than N=$count GPUs"
fi
ensure_environment "$extras"

pids=()
signalled=
forward() {
  signalled=1
  # shellcheck disable=SC2086 # none yet, or several
  kill "-$1" ${pids[*]:-} 2>/dev/null || true
}
trap 'forward TERM' TERM
trap 'forward INT' INT
trap 'forward HUP' HUP

port=$(.venv/bin/python -c 'import socket
with socket.create_server(("127.0.0.1", 0)) as server: print(server.getsockname()[1])')
for ((process = 0; process < count; process++)); do
  if [ "$devices" = gpu ]; then
    export CUDA_VISIBLE_DEVICES=${gpus[process]}
  else
    export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=${devices#cpu:}
  fi
  .venv/bin/python -m spaced_kd.main --coordinator="127.0.0.1:$port" \
    --num_processes="$count" --process_id="$process" "$@" &
  pids+=($!)
done

severity() {
  case "$1" in 0) echo 0 ;; 75) echo 1 ;; 8) echo 2 ;; *) echo 3 ;; esac
}
worst=0
for pid in "${pids[@]}"; do
  while :; do
    signalled=
    code=0
    wait "$pid" || code=$?
    [ -n "$signalled" ] || break # else the signal cut the waiting short
  done
  if [ "$(severity "$code")" -gt "$(severity "$worst")" ]; then worst=$code; fi
done
exit "$worst"
