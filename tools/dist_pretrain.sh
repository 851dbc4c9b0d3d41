#!/usr/bin/env bash
# Pre-train an encoder with several processes: tools/dist_pretrain.sh DATA GPUS --model NAME [options of tools/pretrain.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, the same command on each.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 DATA GPUS --model NAME [options of tools/pretrain.py]" >&2; exit 2; }
data=$1 gpus=$2
shift 2
exec "${PYTHON:-python}" -m mmseg_ext.engine.launch "$gpus" "$(dirname "$0")/pretrain.py" "$data" "$@"
