#!/usr/bin/env bash
# Train on Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of tools/train.py]
# GPUS is the total; GPUS_PER_NODE (8), CPUS_PER_GPU (4) and SRUN_ARGS shape the job.
exec "$(dirname "$0")/slurm_run.sh" "$1" "$2" "${4:?usage: $0 PARTITION JOB_NAME CONFIG GPUS [options]}" \
    "$(dirname "$0")/train.py" "$3" "${@:5}"
