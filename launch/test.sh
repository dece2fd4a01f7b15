#!/usr/bin/env bash
# Sets up what the tests need and runs them. Without a tier, format, lint and types are checked first.
#
#   launch/test.sh                                    all tests but the tier chaos
#   launch/test.sh fast                               one tier: fast, model, system or chaos; fast needs neither torch nor Ray
#   launch/test.sh model -k parity                    further arguments go to pytest
#   launch/test.sh -m 'not ray' tests/scheduling      so do arguments without a tier, which select from all tests
set -euo pipefail
cd "$(dirname "$0")/.."

# Fake GPUs need CUDA_VISIBLE_DEVICES unset: even an empty one hides them from Ray.
unset CUDA_VISIBLE_DEVICES RAY_ADDRESS
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1

tier=
case "${1:-}" in fast | model | system | chaos) tier=$1; shift ;; esac

if [ "$tier" = fast ]; then
  launch/setup.sh fast
  begin=$SECONDS status=0
  .venv-fast/bin/python -m pytest --tier fast --numprocesses auto --maxprocesses 4 --dist worksteal "$@" || status=$?
  echo "test: the tier fast took $((SECONDS - begin)) s"
  exit "$status"
fi

launch/setup.sh dev

install() {  # a Debian package, where this user may install one
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
  echo "test: installing $1"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; } >/dev/null 2>&1 || true
}

if [ -z "$tier" ] || [ "$tier" = system ]; then
  # The page is tested in a real browser and the live view in a real terminal.
  if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    install chromium
    command -v chromium >/dev/null || echo "test: no Chromium, and it cannot be installed here: tests/report/test_page.py is skipped"
  fi
  command -v tmux >/dev/null || install tmux
fi

if [ -n "$tier" ]; then exec .venv/bin/python -m pytest --tier "$tier" "$@"; fi

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pyright --pythonpath .venv/bin/python
# Two at a time, a file by one process: while one waits for Ray or a browser, the other computes. The files come in the
# order of tests/conftest.py, the longest first, and not by their number of tests.
[ $# -gt 0 ] || set -- -m 'not chaos' --numprocesses 2 --dist loadfile --no-loadscope-reorder
exec .venv/bin/python -m pytest "$@"
