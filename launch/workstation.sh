#!/usr/bin/env bash
# Renders a prompt file on the first N GPUs of this machine. Rerun the same command to resume.
#
#   launch/workstation.sh N PROMPTS OUT [options of `ltx-dist render`]
#   launch/workstation.sh 2 prompts.csv out/clips --profile two-gpu
#   launch/workstation.sh 1 prompts.txt out/demo --profile demo --set placement.layout=shared   # no GPU at all
#
# Ends with the exit code of `ltx-dist render` (`ltx-dist --help` lists them). A test runs it, on a CPU.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; fi
n=$1 prompts=$2 out=$3
shift 3
root=$(dirname "$0")/..
"$root/launch/setup.sh"
exec "$root/.venv/bin/ltx-dist" render "$prompts" -o "$out" "$@" --set "placement.devices=$n"
