#!/usr/bin/env bash
# Sets up everything in a virtual environment, once: tools/install.sh [--check-only]
#
#   VENV=.venv         where the environment goes
#   PYTHON=python3.11  which Python makes it (3.11 or 3.12)
#   MMCV_OPS=1         compile mmcv's operators (needs a compiler and Python's headers; nothing here uses them);
#                      they stay until MMCV_OPS=0
#   MMCV_CUDA_OPS=1    compile its CUDA operators too (needs nvcc)
#   MAX_JOBS=n         compiler processes (default: all cores)
#   WHEELS=folder      install from this folder alone, for a machine without a network (filled by 'make wheels')
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
wheels=${WHEELS:-}
needed_gib=12

say() { printf '%s\n' "$*" >&2; }

# The environment's own Python comes first: who chose one does not choose again.
find_python() {
    local candidate
    for candidate in ${PYTHON:-"$venv/bin/python" python3.11 python3.12 python3}; do
        "$candidate" -c 'import sys; print(sys._base_executable); sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
            2>/dev/null && return
    done
    return 1
}

find_uv() { [ -z "$wheels" ] && uv --version >/dev/null 2>&1 && command -v uv; }

has_library() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" 2>/dev/null; }

# Names everything that is missing, before anything is downloaded.
check_machine() {
    local missing=() packages=() found free disk list
    if [ "$(uname -s)" != Linux ]; then
        say "error: this is $(uname -s); Linux is supported, Windows and macOS are not"
        exit 2
    fi
    if ! python=$(find_python); then
        found=${PYTHON:-$(python3 --version 2>/dev/null || echo none)}
        say "error: Python 3.11 or 3.12 is needed (found: $found); install one and run: make install PYTHON=/path/to/python3.11"
        exit 2
    fi
    if [ -z "$uv" ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        missing+=("Python's venv")
        packages+=("$(basename "$(readlink -f "$python")")-venv")
    fi
    if [ "$mmcv" = mmcv-full ] && [ -z "$compiled$wheels" ]; then
        "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
            { missing+=("Python's headers"); packages+=("$(basename "$(readlink -f "$python")")-dev"); }
        { command -v g++ && command -v gcc; } >/dev/null || { missing+=("a C++ compiler"); packages+=(build-essential); }
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        list=$(printf ', %s' "${missing[@]}")
        say "error: missing: ${list:2}; install with: sudo apt-get update && sudo apt-get install -y ${packages[*]}"
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

# Entries of requirements.lock: locked only NAMES, locked without NAMES (a regular expression). A folder's own builds
# have other hashes than the lock.
locked() {
    awk -v only="$([ "$1" = only ] && echo 1 || echo 0)" -v names="^($2)==" \
        '/^[A-Za-z0-9]/ { keep = ($0 ~ names) == only } keep' requirements.lock |
        if [ -n "$wheels" ]; then sed '/--hash=/d; s/ *\\$//'; else cat; fi
}

# What is installed is exactly what is named: the lock has the dependencies too.
install() {
    if [ -n "$uv" ]; then
        "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation "$@"
    else
        "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation \
            ${wheels:+--no-index --find-links "$wheels"} "$@"
    fi
}

uninstall() { "$venv/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes "$@" 2>/dev/null || true; }

make_venv() {
    local clear=() build_tools="pip|setuptools|wheel"
    if [ -f "$venv/pyvenv.cfg" ] && [ "$("$venv/bin/python" --version 2>&1)" != "$("$python" --version)" ]; then
        clear=(--clear)
    fi
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --allow-existing "${clear[@]}" --python "$python" "$venv"
    else
        "$python" -m venv "${clear[@]}" "$venv"
        # twice quiet: where pip only warns, uv may still work
        if [ -z "$wheels" ] && install --quiet -r <(locked only uv) && "$venv/bin/uv" --version >/dev/null 2>&1; then
            uv=$venv/bin/uv
        fi
    fi
    install -r <(locked only "$build_tools") && return
    [ -n "$uv" ] || return 1
    say "uv cannot install here; using pip"
    uv=""
    "$python" -m venv "$venv"
    install -r <(locked only "$build_tools")
}

# Nothing here calls a CUDA operator of mmcv, so GPUs stay hidden from the compilation unless asked for.
compile_mmcv() {
    local pinned
    pinned=$(grep ^mmcv-full== requirements.txt)
    if [ "${MMCV_CUDA_OPS:-0}" = 1 ]; then
        FORCE_CUDA=1 MMCV_WITH_OPS=1 install --force-reinstall --no-cache-dir "$@" "$pinned"
    else
        CFLAGS="-O1 -g0" CUDA_VISIBLE_DEVICES="" FORCE_CUDA=0 MMCV_WITH_OPS=1 install "$@" "$pinned"
    fi
}

ops_load() { "$venv/bin/python" -W ignore -c 'import torch, mmcv._ext' 2>/dev/null; }

uv=$(find_uv || true)
mmcv=mmcv
compiled=$(compgen -G "$venv/lib/python3*/site-packages/mmcv_full-*.dist-info" || true)
if [ "${MMCV_OPS:-${compiled:+1}}" = 1 ] || [ "${MMCV_CUDA_OPS:-0}" = 1 ] ||
    compgen -G "${wheels:-/dev/null}/mmcv_full-*.whl" >/dev/null; then
    mmcv=mmcv-full
fi
check_machine
[ "${1:-}" != --check-only ] || exit 0
opencv=opencv-python
{ has_library libGL.so.1 && has_library libgthread-2.0.so.0; } || opencv=opencv-python-headless # the same without windows

key=$( (cat requirements.txt requirements.lock pyproject.toml setup.py tools/install.sh; "$python" --version; pwd
    echo "$mmcv $opencv ${MMCV_CUDA_OPS:-0}") | sha256sum | cut -c1-16)
stamp=$venv/.installed-$key
[ ! -e "$stamp" ] || exit 0

start=$SECONDS
work="downloads about 3 GB unless they are cached, about a minute with a fast network"
[ -z "$wheels" ] || work="installs from $wheels"
say "setting up $venv with $("$python" --version): $work"
make_venv
rm -f "$venv"/.installed-*
# two names of one package share a folder: the other one goes first
if [ "$mmcv" = mmcv ]; then others="mmcv-full"; else others="mmcv"; fi
if [ "$opencv" = opencv-python ]; then others+=" opencv-python-headless"; else others+=" opencv-python"; fi
# shellcheck disable=SC2086  # two names
uninstall $others
MMCV_WITH_OPS=0 install -r <(locked without "${others// /|}")
if [ "$mmcv" = mmcv-full ]; then
    export MAX_JOBS=${MAX_JOBS:-$(nproc)}
    say "mmcv-full (compiled by $MAX_JOBS processes unless there is a wheel; no output for some minutes)"
    compile_mmcv
    if ! ops_load; then
        # compiled wheels are cached without knowing the torch they were compiled for
        say "the compiled mmcv-full does not load with this torch: compiling it afresh"
        compile_mmcv --force-reinstall --no-cache-dir
        ops_load || { say "error: mmcv-full does not load; see: $venv/bin/python -c 'import torch, mmcv._ext'"; exit 2; }
    fi
fi
PYTHONWARNINGS=ignore install -e . 2>"$venv/install.log" || { cat "$venv/install.log" >&2; exit 1; }
"$venv/bin/python" -c 'import mmseg_ext'
touch "$stamp"
say "set up in $((SECONDS - start)) s"
