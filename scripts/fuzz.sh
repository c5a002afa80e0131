#!/usr/bin/env bash
# Fuzzes the shape rules and the readers of models' files, each for some seconds (60 by default). Ends with 75 where cargo-fuzz or a nightly is missing.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
if ! command -v cargo-fuzz >/dev/null || ! rustc +nightly --version >/dev/null 2>&1; then
    echo "needs: rustup toolchain install nightly; cargo install cargo-fuzz"
    exit 75
fi
export CARGO_TARGET_DIR=$PWD/target
# AddressSanitizer's checks as calls: inlined, they take the compiler longer than the fuzzing.
export RUSTFLAGS="-Cllvm-args=-asan-instrumentation-with-call-threshold=0 ${RUSTFLAGS:-}"
for target in shape_rules gguf safetensors configs tokenizer; do
    echo "$target"
    # No file may make its reader allocate much more than it has bytes.
    cargo +nightly fuzz run "$target" -- -max_total_time="${1:-60}" -malloc_limit_mb=256 -timeout=10 \
        -verbosity=0 -print_funcs=0 -print_final_stats=1
done
