#!/usr/bin/env bash
# Begins a run, or goes on with it where its folder is there: what a scheduler starts, again and again until the run is done.
#   cluster/train.sh CONFIG RUN_DIR [options of genvla fit]
# Exit codes are those of genvla: 0 done, 2 something is wrong with what was given, 75 told to stop, everything saved: start again.
set -euo pipefail
if [ "$#" -lt 2 ]; then
    echo "usage: cluster/train.sh CONFIG RUN_DIR [options of genvla fit]" >&2
    exit 2
fi
config=$1 run_dir=$2
shift 2
if [ -f "$run_dir/config.yaml" ]; then
    exec genvla fit --resume "$run_dir" "$@"
fi
exec genvla fit --config "$config" --run_dir "$run_dir" "$@"
