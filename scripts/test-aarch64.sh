#!/usr/bin/env bash
# Runs the NEON kernels' tests under qemu, with Debian's rustc and its std built for 64-bit Arm. Ends with 75 where the
# tools are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x /usr/bin/cargo ] || [ ! -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ] \
    || ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    echo "needs, on Debian: apt-get install rustc-web cargo-web rust-web-src qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    exit 75
fi
# Kernels that are made of intrinsics need little optimisation, and the compiler much time for more.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
# Two threads, so that the pool takes part on any machine. Without a backtrace: qemu is slow at them.
test_on_arm() {
    env -u RUSTUP_TOOLCHAIN -u CARGO PATH="/usr/bin:/bin" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_DIR=target/aarch64 CANDLEWICK_THREADS=2 RUST_BACKTRACE=0 \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu" \
        /usr/bin/cargo test -Zbuild-std --release --target aarch64-unknown-linux-gnu "$@"
}
# What is measured under an emulator means nothing.
test_on_arm --lib -p candlewick-core -p candlewick-cpu -- --skip limits
test_on_arm -p candlewick-cpu --test against_reference
