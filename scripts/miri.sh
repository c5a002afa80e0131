#!/usr/bin/env bash
# The core, the portable kernels and the pool under Miri: some minutes of it, or with `all` every test, in an hour.
# Ends with 75 where Miri is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "needs: rustup toolchain install nightly --component miri,rust-src"
    exit 75
fi
# The pool's threads outlive main, and the pool asks the system for the number of cores.
export MIRIFLAGS="-Zmiri-ignore-leaks -Zmiri-disable-isolation"
# Long loops over shapes run natively elsewhere; these touch loads, stores, tails and the pool once.
quick=(pool:: wave:: converts_rows packing_halves packs_pairs alpha_zero)
[ "${1:-}" = all ] && quick=()
cargo +nightly miri test -p candlewick-core --lib
cargo +nightly miri test -p candlewick-cpu --lib -- --skip limits ${quick[@]+"${quick[@]}"}
