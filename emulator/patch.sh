#!/usr/bin/env bash
# Fetches five crates at pinned versions and changes one line in each, so that they build on Linux.
#
#   objc2                 feature `gnustep-1-7` no longer asks for `unstable-static-class`:
#                         classes are looked up by name, instead of being symbols of a linker
#   objc2-foundation      NSURL also with that feature
#   objc2-metal,          no `#[link(kind = "framework")]`, which rustc refuses outside Apple's systems
#   objc2-metal-performance-shaders,
#   objc2-core-graphics
#
# The changed copies lie in `patched/` and are used through [patch.crates-io]. With --candle it also copies
# candle-metal-kernels and lets that crate's own tests link the emulator.
set -euo pipefail
cd "$(dirname "$0")"

OBJC2=0.6.5 FRAMEWORKS=0.3.2 CANDLE=0.11.1

fetch() { # name version -> folder of its sources
    local probe; probe=$(mktemp -d)
    mkdir "$probe/src"; touch "$probe/src/lib.rs"
    printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n' "$1" "$2" >"$probe/Cargo.toml"
    cargo metadata --manifest-path "$probe/Cargo.toml" --format-version 1 2>/dev/null |
        grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"" | head -1 | sed 's/.*:"//; s|/Cargo.toml"||'
    rm -rf "$probe"
}

copy() { # name version: a fresh copy, unless the one of this version is there
    [ -f "patched/$1/.version" ] && [ "$(cat "patched/$1/.version")" = "$2 $STAMP" ] && return 1
    echo "patching $1 $2"
    local from; from=$(fetch "$1" "$2")
    [ -n "$from" ] || { echo "cannot fetch $1 $2: is crates.io reachable?" >&2; exit 1; }
    rm -rf "patched/$1"; mkdir -p patched; cp -r "$from" "patched/$1"; chmod -R u+w "patched/$1"
}

change() { # name file sed-expression: exactly this, and an error if it changes nothing
    local file="patched/$1/$2" before; before=$(cksum <"$file")
    sed -i "$3" "$file"
    [ "$before" != "$(cksum <"$file")" ] || { echo "$1/$2 has changed: look at patch.sh" >&2; exit 1; }
}

seal() { echo "$2 $STAMP" >"patched/$1/.version"; }

STAMP=$(cksum <patch.sh | cut -d' ' -f1)

if copy objc2 $OBJC2; then
    change objc2 Cargo.toml '/^gnustep-1-7 = \[/,/^\]/{/"unstable-static-class",/d}'
    seal objc2 $OBJC2
fi
if copy objc2-foundation $FRAMEWORKS; then
    change objc2-foundation src/url.rs '/^#!\[cfg(not(feature = "gnustep-1-7"))\]/d'
    seal objc2-foundation $FRAMEWORKS
fi
for name in objc2-metal objc2-metal-performance-shaders objc2-core-graphics; do
    if copy $name $FRAMEWORKS; then
        change $name src/generated/mod.rs '/^#\[link(name = ".*", kind = "framework")\]/d'
        seal $name $FRAMEWORKS
    fi
done
if [ "${1:-}" = --candle ] && copy candle-metal-kernels $CANDLE; then
    # Its tests are inside the library: they link the emulator by one line and a renamed package. Its example times a Mac.
    change candle-metal-kernels Cargo.toml '/^\[\[example\]\]/,/^$/d'
    change candle-metal-kernels Cargo.toml 's/^name = "candle-metal-kernels"/name = "candle-metal-kernels-on-the-emulator"/'
    change candle-metal-kernels Cargo.toml '$a [dev-dependencies.metal-emulator]\npath = "../../metal"'
    change candle-metal-kernels src/lib.rs '$a #[cfg(test)]\nuse metal_emulator as _;'
    seal candle-metal-kernels $CANDLE
fi
