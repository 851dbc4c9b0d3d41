#!/usr/bin/env bash
# Evaluate on Slurm: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT GPUS [options of tools/test.py]
# GPUS is the total; GPUS_PER_NODE (8), CPUS_PER_GPU (4) and SRUN_ARGS shape the job.
exec "$(dirname "$0")/slurm_run.sh" "$1" "$2" "${5:?usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT GPUS [options]}" \
    "$(dirname "$0")/test.py" "$3" "$4" "${@:6}"
