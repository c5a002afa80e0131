#!/usr/bin/env bash
# Tests under a sanitizer: `scripts/sanitize.sh address` for the kernels, `scripts/sanitize.sh thread` for the pool.
# Ends with 75 where there is no nightly, and for threads where it has no rust-src.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-address}
target=x86_64-unknown-linux-gnu
if [ "$(rustc -vV | sed -n 's/^host: //p')" != "$target" ] || ! rustc +nightly --version >/dev/null 2>&1; then
    echo "needs $target and: rustup toolchain install nightly"
    exit 75
fi
export RUSTFLAGS="-Zsanitizer=$sanitizer ${RUSTFLAGS:-}"
# A sanitizer slows the compiler down more than the tests.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_TARGET_DIR=target/sanitize-$sanitizer
case $sanitizer in
    address)
        # The pool's threads live as long as the process, and so does what they share.
        export ASAN_OPTIONS=detect_leaks=0
        # Checks as calls: in the kernels' long functions inlined ones take the compiler minutes.
        RUSTFLAGS+=" -Cllvm-args=-asan-instrumentation-with-call-threshold=0"
        cargo +nightly test --release --lib --test against_reference --target "$target" -p candlewick-cpu
        ;;
    thread)
        if [ ! -d "$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library" ]; then
            echo "needs: rustup component add rust-src --toolchain nightly"
            exit 75
        fi
        # The standard library has to be built with it too, or its channels and reference counts look like races.
        cargo +nightly test -Zbuild-std --release --lib --target "$target" -p candlewick-cpu -- pool tape
        cargo +nightly test -Zbuild-std --release --target "$target" -p candlewick --test threads
        ;;
    *)
        echo "usage: scripts/sanitize.sh address|thread"
        exit 2
        ;;
esac
