#!/usr/bin/env bash
# Evaluate with several processes: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same command on each.
set -eu
[ $# -ge 3 ] || { echo "usage: $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec "${PYTHON:-python}" -m mmseg_ext.engine.launch "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" "$@"
