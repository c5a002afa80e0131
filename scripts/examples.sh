#!/usr/bin/env bash
# Runs every example, without arguments: those that need some say how they are used.
set -euo pipefail
cd "$(dirname "$0")/.."
for example in crates/*/examples/*.rs; do
    name=$(basename "$example" .rs)
    echo "$name"
    # Without a package, or its dependencies would be built again, for it alone.
    cargo run --quiet --example "$name" </dev/null >/dev/null
done
