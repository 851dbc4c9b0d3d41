#!/usr/bin/env bash
# The first hour on new GPUs, in one page to send back: tools/gpu_check.sh [FOLDER] [options of tools/benchmark/gpu_check.py]
set -eu
exec "${PYTHON:-python}" "$(dirname "$0")/benchmark/gpu_check.py" "$@"
