#!/usr/bin/env bash
# Compiles every shared kernel for NVIDIA GPUs with NVRTC, which needs no GPU: the compiler that the CUDA backend uses. Machine
# code for one architecture, and PTX for the oldest: machine code takes most of the time. Then what tests/nvrtc.rs names of the
# backend's own.
# Installs it from PyPI into target/. Ends with 75 where that is not possible.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/nvrtc
if [ ! -d "$venv/lib" ] || ! "$venv/bin/python" -c 'import importlib.metadata as m; m.version("nvidia-cuda-nvrtc")' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet 'nvidia-cuda-nvrtc==13.*'; }; then
        echo "needs python3 with venv, and PyPI's nvidia-cuda-nvrtc for this machine"
        exit 75
    fi
fi
rm -rf target/kernels
# Without its package, or it would be built with other features than the tests.
cargo run --quiet --example sources -- cuda target/kernels
"$venv/bin/python" scripts/nvrtc.py sm_90 compute_80 -- target/kernels/*.cu
cargo test --quiet --workspace --test nvrtc -- --nocapture
