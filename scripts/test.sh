#!/usr/bin/env bash
# Everything that shows this project right, on a machine with nothing but Rust. `.ci/run` is this script.
#
#   scripts/test.sh            all of it
#   CI=true scripts/test.sh    also installs, with apt and as root, what the extra checks need
#
# A step's output lies in target/test-logs; of a step that fails it is shown. Checks that need more than Rust run where
# their tools are, and the table at the end says where they are not.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nothing here is debugged or built twice: less to write, and a third of the room on the disk.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_RELEASE_DEBUG=0
# The emulator's workspace uses what this one has built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
logs=target/test-logs
rm -rf "$logs" && mkdir -p "$logs"
trap 'kill 0' INT

# Runs a command, without input. One that ends with 75 (EX_TEMPFAIL) lacks its tools.
step() {
    local name=$1 start=$SECONDS status=0 outcome
    shift
    "$@" </dev/null >"$logs/$name" 2>&1 || status=$?
    case $status in
        0) outcome=passed ;;
        75) outcome="not run" name="$name: $(tail -n 1 "$logs/$name")" ;;
        *) outcome=FAILED; printf '\n== %s\n%s\n' "$name" "$(cat "$logs/$name")" ;;
    esac
    printf '%-8s%5d s  %s\n' "$outcome" $((SECONDS - start)) "$name" | tee -a "$logs/table"
}

if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # A failure here costs the extra checks alone, and they say so.
    step "tools for the extra checks" sh -c '
        apt-get update && apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src rust-web-clippy \
            qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang-19 2>&1 || exit 75'
fi

# Two lanes, side by side: one builds most of the time, and both wait for a single core now and then.
other_compilers() {
    step "AddressSanitizer (nightly)" scripts/sanitize.sh address
    step "ThreadSanitizer (nightly)" scripts/sanitize.sh thread
    step "fuzzing of the shape rules and of models' files (cargo-fuzz, nightly)" scripts/fuzz.sh 10
    step "Miri on the portable kernels (nightly)" scripts/miri.sh
    step "NEON kernels under qemu" scripts/test-aarch64.sh
    step "lints for Apple (Debian's rustc-web)" scripts/check-apple.sh
    step "GPU kernels compile for NVIDIA (NVRTC from PyPI)" scripts/check-cuda.sh
}
step "format" cargo fmt --all --check
other_compilers &
step "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
step "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --quiet
step "tests" cargo test --workspace
step "examples" scripts/examples.sh
step "every operation against its f64 reference" "$CARGO_TARGET_DIR/debug/candlewick" verify --quick
step "Metal and MPS on Linux: the emulator, and Candle on it (clang 19)" emulator/test.sh
wait

printf '\n== %d:%02d minutes, of which\n' $((SECONDS / 60)) $((SECONDS % 60))
cat "$logs/table"
if grep -q ^FAILED "$logs/table"; then exit 1; fi
echo "everything that ran passed"
