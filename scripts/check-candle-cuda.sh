#!/usr/bin/env bash
# Candlewick on Candle's CUDA tensors, on a machine without a GPU or a toolkit.
#
#   scripts/check-candle-cuda.sh           lints the feature, and runs what of its tests needs no GPU, on stand-ins for NVIDIA's
#                                          compiler and libraries: nothing is downloaded, and Candle's kernels are empty
#   scripts/check-candle-cuda.sh --nvcc    builds the command for a machine with a GPU, with the real ones from PyPI (2 GB of
#                                          room, some ten minutes): target/candle-cuda/release/candlewick
#
# Ends with 75 where that is not possible.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# A function that fails ("not supported", in each library's numbers) for every symbol that cudarc and Candle may link to, unless
# another is there.
functions() {
    cargo metadata --format-version 1 --features candlewick-candle/cuda | python3 -c '
import json, pathlib, re, sys
names = set()
for package in json.load(sys.stdin)["packages"]:
    source = pathlib.Path(package["manifest_path"]).parent / "src"
    if package["name"] == "cudarc":
        for library in "driver", "nvrtc", "cublas", "cublaslt", "curand":
            text = (source / library / "sys" / "mod.rs").read_text()
            names.update(re.findall(r"\bfn ((?:cu|nvrtc)\w+)\(", text))
    if package["name"] == "candle-kernels":
        names.update(re.findall(r"\bpub fn (\w+)\(", (source / "ffi.rs").read_text()))
for name in sorted(names):
    code = 15 if name.startswith("cublas") else 201 if name.startswith("curand") else 801
    print(f"__attribute__((weak)) int {name}(void) {{ return {code}; }}")'
}

with_stand_ins() {
    command -v "${CC:-cc}" >/dev/null || { echo "no C compiler"; exit 75; }
    local toolkit=$root/target/candle-cuda-stub stub=crates/candlewick-candle/tests/stub name
    mkdir -p "$toolkit/bin" "$toolkit/include" "$toolkit/lib64"
    cp "$stub/nvcc" "$toolkit/bin/"
    functions >"$toolkit/functions.c"
    "${CC:-cc}" -shared -fPIC -O1 -o "$toolkit/lib64/libcuda.so" "$stub/candle.c" "$toolkit/functions.c" -lpthread
    # One library under every name: it has one state.
    for name in libcuda.so.1 libnvrtc.so libnvrtc.so.13 libcublas.so libcublasLt.so libcublasLt.so.13 libcurand.so libcudart.so; do
        ln -sf libcuda.so "$toolkit/lib64/$name"
    done
    # An architecture that no GPU has: cudaforge, which remembers what it compiled, never takes these for real.
    export NVCC=$toolkit/bin/nvcc CUDA_COMPUTE_CAP=99 CUDARC_CUDA_VERSION=13000
    export LD_LIBRARY_PATH=$toolkit/lib64 LIBRARY_PATH=$toolkit/lib64 CANDLEWICK_CUDA_LIBS=$toolkit/lib64
    export CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDA_ROOT=$toolkit XDG_CACHE_HOME=$toolkit/cache
    local features=(--features candlewick-candle/cuda,candlewick-cli/candle-cuda)
    cargo clippy --release --quiet -p candlewick-candle -p candlewick-cli "${features[@]}" --all-targets -- -D warnings
    cargo test --release -p candlewick-candle --features cuda --test cuda --test cuda_calls -- --nocapture
    # Who takes part on a GPU, in which regimes; the times of stand-ins mean nothing.
    cargo run --release --quiet -p candlewick-cli --features candle-cuda -- bench --device cuda --quick --dtype bf16 \
        --ops matmul,lora_linear,lora_linear+backward --json "$toolkit/rows.json" >"$toolkit/bench.txt"
    python3 -c '
import json, sys
rows = json.load(open(sys.argv[1]))
for case in {(row["op"], row["shape"]) for row in rows}:
    for engine in "candle", "candlewick-candle":
        regimes = {row["regime"] for row in rows if (row["op"], row["shape"], row["engine"]) == (*case, engine)}
        assert regimes == {"latency", "pipelined", "enqueue", "replay"}, (case, engine, regimes)
print(f"Candle and Candlewick on its tensors take part in {len(rows)} rows of the bench")' "$toolkit/rows.json"
}

with_nvcc() {
    local venv=$root/target/nvcc site toolkit library
    if [ ! -e "$venv/complete" ]; then
        # cudarc 0.19 knows CUDA up to 13.4, and drivers of CUDA 13.0 take this.
        { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --no-deps 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' \
            'nvidia-nvvm==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' \
            'nvidia-cublas==13.0.*' 'nvidia-curand==10.4.0.*' && touch "$venv/complete"; } ||
            { echo "needs python3 with venv, and PyPI's nvidia-cuda-nvcc and its companions for this machine"; exit 75; }
    fi
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    toolkit=$site/nvidia/cu13
    ln -sfn lib "$toolkit/lib64"
    # Linkers look for names without versions, and wheels lack them.
    for library in "$toolkit"/lib/lib*.so.[0-9]*; do
        ln -sf "$(basename "$library")" "${library%%.so.*}.so"
    done
    # The driver comes with the GPU: to link, its symbols are enough.
    functions | grep ' cu[A-Z]' >"$venv/driver.c"
    "${CC:-cc}" -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$toolkit/lib/libcuda.so" "$venv/driver.c"
    export PATH=$toolkit/bin:$PATH CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDA_ROOT=$toolkit LIBRARY_PATH=$toolkit/lib
    export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90}
    # Stripped, to be carried.
    CARGO_PROFILE_RELEASE_STRIP=true cargo build --release --target-dir target/candle-cuda -p candlewick-cli --features candle-cuda "$@"
    ls -l target/candle-cuda/release/candlewick
}

if [ "${1:-}" = --nvcc ]; then
    shift
    with_nvcc "$@"
else
    with_stand_ins
fi
