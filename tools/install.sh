#!/usr/bin/env bash
# Sets up everything in a virtual environment, once: tools/install.sh [--check-only]
#
#   VENV=.venv         where the environment goes
#   PYTHON=python3.11  which Python makes it (3.11 or 3.12)
#   MMCV_CUDA_OPS=1    compile mmcv-full's CUDA ops too (needs nvcc; none of our networks uses them)
#   WHEELS=folder      install from this folder alone, for a machine without a network (filled by 'make wheels')
#   MAX_JOBS=n         compiler processes (default: all cores)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
needed_gib=12

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Names everything that is missing, before anything is downloaded.
check_machine() {
    local missing=() packages=() found free disk
    if [ "$(uname -s)" != Linux ]; then
        say "error: this is $(uname -s); Linux is supported, Windows and macOS are not"
        exit 2
    fi
    if ! python=$(find_python); then
        found=${PYTHON:-$(python3 --version 2>/dev/null || echo none)}
        say "error: Python 3.11 or 3.12 is needed (found: $found); install one and run: make ${MAKE_GOAL:-install} PYTHON=/path/to/python3.11"
        exit 2
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null || { missing+=("Python's venv"); packages+=("$(basename "$(readlink -f "$python")")-venv"); }
    if [ -z "${WHEELS:-}" ]; then
        "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
            { missing+=("Python's headers"); packages+=("$(basename "$(readlink -f "$python")")-dev"); }
        { command -v g++ && command -v gcc && command -v make; } >/dev/null || { missing+=("a C++ compiler"); packages+=(build-essential); }
    fi
    "$python" -c 'import ctypes; ctypes.CDLL("libGL.so.1")' 2>/dev/null || { missing+=("libGL"); packages+=(libgl1); }
    "$python" -c 'import ctypes; ctypes.CDLL("libgthread-2.0.so.0")' 2>/dev/null || { missing+=("libglib"); packages+=(libglib2.0-0); }
    case "${MAKE_GOAL:-}" in test | check)
        { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null ||
            { missing+=("Chromium, in which a test opens the report"); packages+=(chromium); } ;;
    esac
    if [ ${#missing[@]} -gt 0 ]; then
        local list
        list=$(printf ', %s' "${missing[@]}")
        say "error: missing: ${list:2}; bring it with: sudo apt-get update && sudo apt-get install -y ${packages[*]}"
        exit 2
    fi
    if [ ! -d "$venv/lib" ]; then
        disk=$(dirname "$venv")
        free=$(df -Pk "$disk" | awk 'NR == 2 { print int($4 / 1048576) }')
        if [ "$free" -lt "$needed_gib" ]; then
            say "error: $needed_gib GiB of free disk are needed in $disk, $free GiB are there; free some, or set VENV to another disk"
            exit 2
        fi
    fi
}

pinned() { grep -E "^($1)==" requirements.txt; }

pip_install() {
    local source=()
    [ -z "${WHEELS:-}" ] || source=(--no-index --find-links "$WHEELS")
    "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "${source[@]}" "$@"
}

# None of our networks calls a CUDA op of mmcv, so GPUs stay hidden from the compilation unless asked for.
install_mmcv() {
    if [ "${MMCV_CUDA_OPS:-0}" = 1 ]; then
        FORCE_CUDA=1 MMCV_WITH_OPS=1 pip_install --no-build-isolation --no-cache-dir "$@" "$(pinned mmcv-full)"
    else
        CFLAGS="-O1 -g0" CUDA_VISIBLE_DEVICES="" FORCE_CUDA=0 MMCV_WITH_OPS=1 pip_install --no-build-isolation "$@" "$(pinned mmcv-full)"
    fi
}

mmcv_loads() { "$venv/bin/python" -W ignore -c 'import torch, mmcv._ext' 2>/dev/null; }

check_machine
[ "${1:-}" != --check-only ] || exit 0

key=$( (cat requirements.txt setup.py tools/install.sh; "$python" --version; pwd; echo "ops ${MMCV_CUDA_OPS:-0}") | sha256sum | cut -c1-16)
stamp=$venv/.installed-$key
[ ! -e "$stamp" ] || exit 0

start=$SECONDS
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
work="downloads about 3 GB and compiles mmcv-full, 8 to 20 minutes on 2 cores"
[ -z "${WHEELS:-}" ] || work="installs from $WHEELS, 2 minutes"
say "setting up $venv with $("$python" --version): $work"
"$python" -m venv "$venv"
rm -f "$venv"/.installed-*
# shellcheck disable=SC2046  # one argument per pinned package
pip_install $(pinned "setuptools|wheel|ninja|psutil")
say "[1/4] torch"
# shellcheck disable=SC2046
pip_install $(pinned "torch|torchvision|numpy")
say "[2/4] mmcv-full (compiled by $MAX_JOBS processes unless there is a wheel; no output for some minutes)"
install_mmcv
if ! mmcv_loads; then
    # pip keeps compiled wheels without knowing the torch they were compiled for
    say "      the compiled mmcv-full does not load with this torch: compiling it afresh"
    install_mmcv --force-reinstall --no-deps --no-cache-dir
    mmcv_loads || { say "error: mmcv-full does not load; see: $venv/bin/python -c 'import torch, mmcv._ext'"; exit 2; }
fi
say "[3/4] the other packages"
pip_install -r requirements.txt
say "[4/4] this package"
PYTHONWARNINGS=ignore pip_install --no-build-isolation --no-deps -e . 2>"$venv/install.log" || { cat "$venv/install.log" >&2; exit 1; }
"$venv/bin/python" -c 'import mmseg_ext'
touch "$stamp"
say "set up in $((SECONDS - start)) s"
