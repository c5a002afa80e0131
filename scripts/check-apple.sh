#!/usr/bin/env bash
# Checks and lints the library for Apple silicon on Linux, with Debian's rustc: it can build std for a target that no
# toolchain is installed for. Ends with 75 where it is missing; without clippy it says so and checks the types alone.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x /usr/bin/cargo ] || [ ! -x /usr/bin/rustc ] || [ ! -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
    echo "needs, on Debian: apt-get install rustc-web cargo-web rust-web-src"
    exit 75
fi
command=(/usr/bin/cargo check) lints=()
if [ -x /usr/bin/cargo-clippy ] && [ -x /usr/bin/clippy-driver ]; then
    command=(/usr/bin/cargo-clippy clippy --no-deps) lints=(-- -D warnings)
else
    echo "types only; for the lints, on Debian: apt-get install rust-web-clippy"
fi
# Debian's own tools by name: a cargo or rustc of rustup, in PATH or in a variable, is another version.
env -u RUSTUP_TOOLCHAIN -u CARGO PATH="/usr/bin:/bin" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/apple \
    "${command[@]}" -Zbuild-std=std,panic_abort --target aarch64-apple-darwin \
    -p candlewick-core -p candlewick-empty -p candlewick-cpu -p candlewick-kernels -p candlewick-metal -p candlewick -p candlewick-verify -p candlewick-cli \
    -p candlewick-candle --features candlewick-candle/metal "$@" "${lints[@]}"
