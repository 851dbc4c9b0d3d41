#!/usr/bin/env bash
# Behind slurm_train.sh and slurm_test.sh: one launcher per node, which starts that node's processes.
# usage: slurm_run.sh PARTITION JOB_NAME GPUS SCRIPT [ARGS ...]
set -eu
partition=$1 job=$2 gpus=$3
shift 3
per_node=${GPUS_PER_NODE:-8}
[ "$gpus" -lt "$per_node" ] && per_node=$gpus
if [ $((gpus % per_node)) -ne 0 ]; then
    echo "error: $gpus GPUs do not fill nodes of $per_node; ask for a multiple or set GPUS_PER_NODE" >&2
    exit 2
fi
nodes=$((gpus / per_node))
export PYTHON=${PYTHON:-python} PORT=${PORT:-$((20000 + RANDOM % 20000))} NNODES=$nodes PER_NODE=$per_node
# shellcheck disable=SC2016,SC2086  # expanded on the node; SRUN_ARGS holds several words
exec srun -p "$partition" --job-name="$job" --nodes="$nodes" --ntasks-per-node=1 --gres="gpu:$per_node" \
    --cpus-per-task=$((per_node * ${CPUS_PER_GPU:-4})) --kill-on-bad-exit=1 ${SRUN_ARGS:-} bash -c '
    export NODE_RANK=$SLURM_NODEID
    export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    exec "$PYTHON" -m mmseg_ext.engine.launch "$PER_NODE" "$@"' launch "$@"
