#!/usr/bin/env bash
# Decoding and training steps of a model with SmolLM2-135M's shape and random weights, beside transformers and PEFT, in one run
# on a machine with an NVIDIA GPU; writes a table. Nothing is built here: carry the binary over.
#
#   scripts/compare-gpu-models.sh [--binary FILE] [--python PYTHON] [--compile SECONDS] [--training]
#                                 [--out FOLDER]
#
#   --binary   the candlewick command (default: target/release/candlewick)
#   --python   a Python that has torch with CUDA, transformers and peft (default: python3)
#   --compile  the peers under torch.compile too, each for at most so many seconds: compiling takes minutes
#   --training training steps alone
#   --out      where models.md goes (default: target/compare)
#
# Ends with 75 where something is missing, and says what.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=target/release/candlewick python=python3 compile=0 training= out=target/compare
while [ $# -gt 0 ]; do
    case $1 in
        --binary | --python | --compile | --out)
            [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift ;;
        --training) training=yes ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
if ! said=$("$python" -c 'import sys, torch, transformers, peft; sys.exit(0 if torch.cuda.is_available() else "torch sees no GPU")' 2>&1); then
    echo "missing: $python says $(tail -n 1 <<<"$said")"
    exit 75
fi
[ -x "$binary" ] || { echo "missing: the binary $binary"; exit 75; }

mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
peer() { "$python" scripts/models_peer.py "$@" 2>/dev/null | tail -n 1 || echo "no result"; }
compiled() { if [ "$compile" = 0 ]; then echo "-"; else timeout "$compile" "$python" scripts/models_peer.py "$@" --compile 2>/dev/null | tail -n 1 || echo "not done in $compile s"; fi; }
"$python" scripts/models_peer.py model "$work/model" "$work/lines.jsonl" >/dev/null 2>&1

decode() {
    "$binary" generate --model "$work/model" --device cuda --temperature 0 --ignore-end --max-tokens 400 --prompt "$(printf 'x%.0s' {1..31})" 2>&1 >/dev/null |
        sed -n 's/.* \([0-9]*\) tokens at \([0-9]*\)\/s.*/\2/p'
}
train() { # batch, sequence, targets
    local said
    said=$("$binary" train --model "$work/model" --data "$work/lines.jsonl" --device cuda --rank 8 --loss-on everything --restart \
        --out "$work/out" --batch "$1" --sequence "$2" --targets "$3" --steps 100 2>&1)
    "$python" - "$work/out/metrics.jsonl" "$(sed -n 's/^memory *//p' <<<"$said")" <<'END'
import json, statistics, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
seconds = [step["seconds"] for step in steps if step.get("kind") == "step"]
print(f"{statistics.median(seconds[5:]) * 1e3:.2f} ms, {sys.argv[2]}")
END
}

{
    echo "SmolLM2-135M's shape, random weights, bf16; $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1);"
    "$python" -c 'import torch, transformers, peft; print(f"torch {torch.__version__}, transformers {transformers.__version__}, PEFT {peft.__version__}; medians")'
    echo
    echo "| | Candlewick | transformers, PEFT | the same, compiled |"
    echo "|---|---|---|---|"
    if [ -z "$training" ]; then
        decode >/dev/null # compiles kernels
        echo "| decoding, batch 1, tokens/s | $(for _ in 1 2 3; do decode; done | sort -n | sed -n 2p) | $(peer decode "$work/model") | $(compiled decode "$work/model") |"
    fi
    for shape in "4 256 q_proj,v_proj" "8 512 q_proj,v_proj" "4 256 all-linear"; do
        read -r batch sequence targets <<<"$shape"
        options=(train "$work/model" --batch "$batch" --sequence "$sequence" --targets "$targets")
        echo "| training step, $batch x $sequence, rank 8, $targets | $(train "$batch" "$sequence" "$targets") | $(peer "${options[@]}") | $(compiled "${options[@]}") |"
    done
} | tee "$out/models.md"
