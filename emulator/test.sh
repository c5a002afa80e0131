#!/usr/bin/env bash
# Everything that shows the emulator right. Ends with 75 where clang or crates.io is missing.
#
#   emulator/test.sh            all of it
#   emulator/test.sh --quick    without Candle
#
# KERNELS_CASES, CANDLEWICK_CASES, CANDLEWICK_PLANS and CANDLEWICK_SOAK lengthen the tests of Candlewick's own kernels and
# of its Metal backend.
set -euo pipefail
cd "$(dirname "$0")"
export KERNELS_CASES=${KERNELS_CASES:-20} CANDLEWICK_CASES=${CANDLEWICK_CASES:-1}

clang() { command -v clang++-19 || command -v clang++-20 || command -v clang++; }
clang >/dev/null || { echo "no clang++: install clang-19"; exit 75; }
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "the emulator runs on x86-64 Linux"; exit 75; }

# Always all packages at once: one by one they would have what they share built with other features, again.
ours=(-p emulator-objc -p msl-check -p emulator-msl -p metal-emulator -p kernels-on-the-emulator -p product-on-the-emulator
    -p models-on-the-emulator)
cli=() candles_own=()
if [ "${1:-}" != --quick ]; then
    ours+=(-p candle-on-the-emulator -p candle-adapter-on-the-emulator)
    cli=(-p candlewick-on-the-emulator)
    # The tests inside candle-metal-kernels.
    candles_own=(-p candle-metal-kernels-on-the-emulator)
fi

./patch.sh --candle
cargo fmt --check "${ours[@]}"
cargo clippy --quiet --all-targets "${ours[@]}" "${cli[@]}" -- -D warnings
RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps "${ours[@]}" "${cli[@]}"
./run-tests.sh "${ours[@]}" "${candles_own[@]}"
cargo test --quiet --doc "${ours[@]}" "${candles_own[@]}"
for example in metal/examples/*.rs; do
    "${CARGO_TARGET_DIR:-target}/debug/examples/$(basename "$example" .rs)" >/dev/null
done
