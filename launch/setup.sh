#!/usr/bin/env bash
# Makes a virtual environment with pinned packages, once; the other recipes call it.
#
#   launch/setup.sh            the packages that rendering needs
#   launch/setup.sh dev        also those that the tests need
#   launch/setup.sh fast       .venv-fast without torch and Ray, for the test tier `fast`
#
# PYTHON chooses the interpreter (3.11 or newer); otherwise it is python3, or the newest python3.N if that is too old. A torch that the constraints
# allow and that is already in .venv is kept: install a CPU or CUDA build there first if you want that one.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
packages=(--editable ".${1:+[$1]}")
if [ "${1:-}" = fast ]; then
  venv=.venv-fast
  packages=(--requirement launch/fast.txt)
fi

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  echo "setup: no Python 3.11 or newer found; install python3.11 or set PYTHON=/path/to/python" >&2
  return 1
}

make_venv() {
  local python=$1
  "$python" -m venv "$venv" 2>/dev/null && return
  rm -rf "$venv"
  if command -v uv >/dev/null; then uv venv --quiet --seed --python "$python" "$venv" && return; fi
  if command -v virtualenv >/dev/null; then virtualenv --quiet --python "$python" "$venv" && return; fi
  echo "setup: $python cannot make virtual environments. Install its venv package (Debian and Ubuntu:" \
       "apt install python3-venv), or uv, or virtualenv, and run this again." >&2
  return 1
}

stamp=$venv/.installed${1:+-$1}
if [ -e "$stamp" ] && [ ! pyproject.toml -nt "$stamp" ] && [ ! constraints.txt -nt "$stamp" ] &&
  [ ! launch/fast.txt -nt "$stamp" ]; then exit 0; fi
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
  python=$(find_python)
  rm -rf "$venv"
  make_venv "$python"
fi
echo "setup: installing pinned packages into $venv (a few minutes the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "${packages[@]}"
touch "$stamp"
