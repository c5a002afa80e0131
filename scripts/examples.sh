#!/usr/bin/env bash
# Runs every example, briefly: those that measure get small sizes, and those that need arguments say how they are used.
set -euo pipefail
cd "$(dirname "$0")/.."
for example in crates/*/examples/*.rs; do
    name=$(basename "$example" .rs)
    arguments=()
    case $name in
        kernel_lab) arguments=(portable softmax) ;;
        lora_rows) arguments=(cpu 8 256 8 4) ;;
        plan_chain) arguments=(cpu 100) ;;
        quant_linear) arguments=(1) ;;
    esac
    echo "$name" ${arguments[@]+"${arguments[@]}"}
    # Without a package, or its dependencies would be built again, for it alone.
    cargo run --quiet --example "$name" -- ${arguments[@]+"${arguments[@]}"} </dev/null >/dev/null
done
