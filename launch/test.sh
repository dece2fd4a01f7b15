#!/usr/bin/env bash
# Sets up all that the tests need and runs everything: format, lint, types, tests. Further arguments go to pytest.
#
#   launch/test.sh
#   launch/test.sh -m 'not ray' tests/scheduling
set -euo pipefail
cd "$(dirname "$0")/.."
launch/setup.sh dev

# The page is tested in a real browser: one that is here, or Debian's if this user may install it.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing chromium for tests/report/test_page.py"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || true
  fi
  command -v chromium >/dev/null || echo "test: no Chromium, and it cannot be installed here: tests/report/test_page.py is skipped"
fi

# The live view is tested in a real terminal.
if ! command -v tmux >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends tmux; } >/dev/null 2>&1 || true
fi

# Fake GPUs need CUDA_VISIBLE_DEVICES unset: even an empty one hides them from Ray.
unset CUDA_VISIBLE_DEVICES RAY_ADDRESS
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1

.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pyright --pythonpath .venv/bin/python
exec .venv/bin/python -m pytest "$@"
