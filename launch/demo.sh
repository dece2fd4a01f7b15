#!/usr/bin/env bash
# Renders the packaged prompts with the packaged model into out/demo: offline, on any machine, through Ray actors, one
# per stage, and prints the timeline. Further arguments go to `ltx-dist demo`.
#
#   launch/demo.sh
#   launch/demo.sh --set placement.layout=replicated --set placement.devices=2
set -euo pipefail
cd "$(dirname "$0")/.."
launch/setup.sh
exec .venv/bin/ltx-dist demo --output out/demo --executor ray "$@"
