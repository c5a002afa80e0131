#!/usr/bin/env bash
# The core, the portable kernels and the pool under Miri. Ends with 75 where Miri is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "needs: rustup toolchain install nightly --component miri,rust-src"
    exit 75
fi
# The pool's threads outlive main; the machine's own instructions are not Miri's business.
export MIRIFLAGS="-Zmiri-ignore-leaks -Zmiri-disable-isolation"
cargo +nightly miri test -p candlewick-core --lib
# Those of the kernels' tests that end within a minute each under Miri; pointers and tails are the same in the others.
cargo +nightly miri test -p candlewick-cpu --lib -- pool converts_rows packing_halves packs_pairs alpha_zero
