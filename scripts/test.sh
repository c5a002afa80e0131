#!/usr/bin/env bash
# Everything that shows this project right, on a machine with nothing but Rust. `.ci/run` is this script.
#
#   scripts/test.sh            all of it
#   CI=true scripts/test.sh    also installs, with apt and as root, what the extra checks need
#
# Checks that need more than Rust run where their tools are, and are listed at the end where they are not.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nothing here is debugged or built twice: less to write, and a third of the room on the disk.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_RELEASE_DEBUG=0

skipped=()

step() {
    printf '\n== %s\n' "$1"
}

# Runs a check that ends with 75 (EX_TEMPFAIL) where its tools are not installed.
extra() {
    local name=$1 status=0
    shift
    step "$name"
    "$@" || status=$?
    case $status in
        0) ;;
        75) skipped+=("$name") ;;
        *) echo "FAILED: $name"; exit "$status" ;;
    esac
}

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step "tools for the extra checks"
    # A failure here costs the extra checks alone, and they say so.
    { apt-get update && apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src \
        qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang-19; } >/tmp/candlewick-apt.log 2>&1 \
        || echo "not installed: $(tail -n 1 /tmp/candlewick-apt.log)"
fi

step "format"
cargo fmt --all --check
step "clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
step "documentation"
RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet

step "tests, with overflow checks: shape rules and the contract"
cargo test -p candlewick-core -p candlewick-empty
step "tests"
cargo test --release --workspace
step "examples"
for example in crates/*/examples/*.rs; do
    [ -e "$example" ] || continue
    package=$(basename "$(dirname "$(dirname "$example")")")
    echo "$package: $(basename "$example" .rs)"
    cargo run --release --quiet -p "$package" --example "$(basename "$example" .rs)" </dev/null >/dev/null
done
step "every operation against its f64 reference"
cargo run --release --quiet --bin candlewick -- verify --quick

extra "Metal and MPS on Linux: the emulator, and Candle on it (clang 19)" emulator/test.sh
extra "GPU kernels compile for NVIDIA (NVRTC from PyPI)" scripts/check-cuda.sh
extra "fuzzing of the shape rules and of models' files (cargo-fuzz, nightly)" scripts/fuzz.sh 20
extra "AddressSanitizer (nightly)" scripts/sanitize.sh address
extra "ThreadSanitizer (nightly)" scripts/sanitize.sh thread
extra "Miri on the portable kernels" scripts/miri.sh
extra "types for Apple (Debian's rustc-web)" scripts/check-apple.sh
extra "NEON kernels under qemu" scripts/test-aarch64.sh

printf '\n== done\n'
for name in ${skipped[@]+"${skipped[@]}"}; do
    echo "not run, its tools are not installed: $name"
done
echo "everything that ran passed"
