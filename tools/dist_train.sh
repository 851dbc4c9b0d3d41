#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same command on each.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec "${PYTHON:-python}" -m mmseg_ext.engine.launch "$gpus" "$(dirname "$0")/train.py" "$config" "$@"
