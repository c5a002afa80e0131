#!/usr/bin/env bash
# Builds the tests of packages of this workspace (`-p NAME ..`) and runs their programs side by side: each uses one core,
# as the emulated GPU is one thread.
set -euo pipefail
cd "$(dirname "$0")"

cargo test --quiet --no-run "$@"
# Lines of a folder to run in and a program, the longest first.
programs=$(cargo test --quiet --no-run --message-format=json "$@" |
    sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1 \2/p')
longest='/(verify_fails|agrees|models|programs|generate|train)-'

run() {
    local start=$SECONDS options=(--quiet) status=0
    cd "$1"
    if [[ $1 == */patched/candle-metal-kernels ]]; then
        # scatter_add needs zeroed buffers, what is known of Candle's kernels (README.md) must not fail them, and
        # skipped.txt has the reasons why some cannot pass.
        export METAL_EMULATOR_FILL=zero METAL_EMULATOR_REPORTS=print
        # shellcheck disable=SC2046
        options+=(--exact $(sed 's/ *#.*//; /./s/^/--skip=/' ../../candle/skipped.txt))
    fi
    output=$("$2" "${options[@]}" 2>&1) || status=$?
    if [ $status = 0 ]; then output=$(grep '^test result' <<<"$output" || true); fi
    printf '%4d s  %s\n%s\n' $((SECONDS - start)) "$(basename "$1")/$(basename "${2%-*}")" "$output"
    return $status
}
export -f run
{ grep -E "$longest" <<<"$programs"; grep -vE "$longest" <<<"$programs"; } | xargs -P "$(nproc)" -n 2 bash -c 'run "$@"' run
