#!/usr/bin/env bash
# Everything that shows the emulator right. Ends with 75 where clang or crates.io is missing.
#
#   emulator/test.sh            all of it: about five minutes once kernels are cached, under twenty cold
#   emulator/test.sh --quick    without Candle
set -euo pipefail
cd "$(dirname "$0")"

clang() { command -v clang++-19 || command -v clang++-20 || command -v clang++; }
clang >/dev/null || { echo "no clang++: install clang-19"; exit 75; }
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "the emulator runs on x86-64 Linux"; exit 75; }

./patch.sh --candle
ours=(-p emulator-objc -p msl-check -p emulator-msl -p metal-emulator -p kernels-on-the-emulator -p product-on-the-emulator -p models-on-the-emulator)
cargo fmt --check "${ours[@]}" -p candle-on-the-emulator -p candle-adapter-on-the-emulator
cargo clippy --quiet --all-targets "${ours[@]}" -- -D warnings
cargo check --quiet -p candlewick-on-the-emulator
RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps

cargo test --quiet
for example in metal/examples/*.rs; do
    [ -e "$example" ] && cargo run --quiet -p metal-emulator --example "$(basename "$example" .rs)" >/dev/null
done
# Candlewick's own kernels and its Metal backend; KERNELS_CASES, CANDLEWICK_CASES, CANDLEWICK_PLANS and CANDLEWICK_SOAK
# lengthen it. Every test process uses one core: the backend's tests run beside the others.
export KERNELS_CASES=${KERNELS_CASES:-20} CANDLEWICK_CASES=${CANDLEWICK_CASES:-1}
cargo test --quiet --no-run -p kernels-on-the-emulator -p product-on-the-emulator -p models-on-the-emulator
product=$(mktemp)
cargo test --quiet -p product-on-the-emulator -p models-on-the-emulator >"$product" 2>&1 &
backend=$!
finish() {
    local status=0
    wait $backend || status=$?
    cat "$product"
    rm "$product"
    return $status
}
cargo test --quiet -p kernels-on-the-emulator
if [ "${1:-}" = --quick ]; then finish; exit; fi

cargo test --quiet -p candle-on-the-emulator
# candlewick-candle on Metal tensors.
cargo clippy --quiet --all-targets -p candle-adapter-on-the-emulator -- -D warnings
cargo test --quiet -p candle-adapter-on-the-emulator
# candle-metal-kernels' own tests, but for those in skipped.txt, which has the reasons. scatter_add needs zeroed buffers;
# what is known of Candle's kernels (README.md) must not fail them.
skipped=$(sed 's/#.*//' candle/skipped.txt | xargs -n1 printf -- '--skip=%s ')
# shellcheck disable=SC2086
METAL_EMULATOR_FILL=zero METAL_EMULATOR_REPORTS=print \
    cargo test --quiet -p candle-metal-kernels-on-the-emulator --lib -- --exact $skipped 2>/tmp/candlewick-candle-reports.log \
    || { tail -n 50 /tmp/candlewick-candle-reports.log; exit 1; }
finish
