#!/usr/bin/env bash
# Build and run every example against the installed derand_fast; nothing is left behind.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r "$here"/. "$scratch"
cd "$scratch"

echo "== a C function through ctypes"
python -P c_pointer.py
echo "== kernels in a Numba prange"
python -P numba_prange.py
echo "== Lanczos in a Cython module"
cd cython_lanczos
python setup.py -q build_ext --inplace
python run.py
