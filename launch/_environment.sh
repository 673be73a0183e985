# Sourced, from the repository root, by the scripts that need the package in .venv.
#
# .venv/installing    exists while an installation runs; holds the script's process id
# .venv/ready[EXTRAS] what was installed when one last finished

# ensure_environment [EXTRAS]: make .venv hold the package, unless it does already.
ensure_environment() {
  local extras=${1:-} wanted python
  wanted=$(pwd; cat setup.cfg pyproject.toml requirements*.txt | cksum)
  local ready=".venv/ready[$extras]"
  if usable && [ "$(cat "$ready" 2>/dev/null)" = "$wanted" ]; then return; fi
  refuse_a_second_installation
  if ! usable; then
    python=$(find_python)
    if [ -e .venv ]; then
      echo ".venv is unfinished, broken or of another Python; making it anew." >&2
      rm -rf .venv
    fi
  fi
  mkdir -p .venv
  echo "$$" > .venv/installing
  echo "Installing spaced_kd${extras:+[$extras]} into .venv ($(duration "$extras"))..." >&2
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  # A fifth of the modules is ever imported; Python compiles those when they are.
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-compile \
    --editable ".${extras:+[$extras]}"
  printf '%s\n' "$wanted" > "$ready"
  rm .venv/installing
}

# True if the last installation finished, and Python is there and the one asked for.
usable() {
  local version='import sys; print(*sys.version_info[:2])' found
  [ ! -e .venv/installing ] || return 1
  found=$(.venv/bin/python -c "$version" 2>/dev/null) || return 1
  [ -z "${PYTHON:-}" ] || [ "$found" = "$("$PYTHON" -c "$version" 2>/dev/null)" ]
}

refuse_a_second_installation() {
  local pid
  pid=$(cat .venv/installing 2>/dev/null) || return 0
  if [ -n "$pid" ] && [ "$pid" != "$$" ] && kill -0 "$pid" 2>/dev/null; then
    echo "error: process $pid is installing into .venv; wait for it, or delete .venv" \
      "if that process is something else." >&2
    exit 1
  fi
}

find_python() {
  local candidates=(python3.13 python3.12 python3.11 python3) candidate
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  local supported='import ensurepip, sys, venv
sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c "$supported" >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 with venv among: ${candidates[*]};" \
    "install one, or set PYTHON to its path." >&2
  return 1
}

duration() {
  case "$1" in
    cuda*) echo "once, 3.5 GB of downloads" ;;
    *) echo "once, about 1 minute" ;;
  esac
}
