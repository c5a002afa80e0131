#!/usr/bin/env bash
# The whole comparison on a machine with an NVIDIA GPU: Candlewick, Candlewick on Candle's tensors, Candle, PyTorch and, where it
# is, MLX, in one run; writes the table that the README shows, with card, driver and versions. Nothing is built here: carry the
# binary over (scripts/check-candle-cuda.sh --nvcc builds one with Candle on CUDA).
#
#   scripts/compare-gpu.sh [--binary FILE] [--python PYTHON] [--mlx PYTHON] [--dtype bf16] [--device cuda] [--out FOLDER]
#                          [--quick] [--sanitize]
#
#   --binary    the candlewick command; otherwise the one that was built in target/
#   --python    a Python that has torch with CUDA (default: python3)
#   --mlx       a Python that has mlx[cuda] and numpy; otherwise that of --python, if it has them
#   --out       where the results go (default: target/compare): table.md, bench.md, rows.json, and with --sanitize
#               verify.txt, memcheck.txt, racecheck.txt
#   --quick     a few shapes, in half a minute
#   --sanitize  also verifies every operation, plainly and under compute-sanitizer: half an hour
#   --device    another device: `cpu` rehearses all but the GPU
#
# Ends with 75 where something is missing, and says what.
set -euo pipefail
cd "$(dirname "$0")/.."

binary= python=python3 mlx= dtype=bf16 device=cuda out=target/compare quick=() sanitize=
while [ $# -gt 0 ]; do
    case $1 in
        --binary | --python | --mlx | --dtype | --device | --out)
            [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift ;;
        --quick) quick=(--quick) ;;
        --sanitize) sanitize=yes ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
gpu=
case $device in cuda*) gpu=yes ;; esac

missing=()
if [ -z "$binary" ]; then
    for binary in target/candle-cuda/release/candlewick target/release/candlewick; do
        [ -x "$binary" ] && break
    done
fi
# Candle is linked to NVIDIA's libraries; PyTorch's wheels bring them.
libraries=$("$python" - 2>/dev/null <<'END' || true
import glob, site, sys
folders = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = [lib for folder in folders if folder for lib in sorted(glob.glob(folder + "/nvidia/*/lib"))]
print(":".join(dict.fromkeys(found)))
END
)
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${libraries:+$libraries:}/usr/local/cuda/lib64
if [ ! -x "$binary" ]; then
    missing+=("the binary: scripts/check-candle-cuda.sh --nvcc builds it, or cargo build --release without Candle on CUDA")
elif ! said=$("$binary" --version 2>&1); then
    missing+=("libraries of $binary: $(tail -n 1 <<<"$said")")
fi
if [ -n "$gpu" ] && ! said=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1); then
    missing+=("an NVIDIA GPU and its driver: nvidia-smi says ${said##*: }")
fi
if ! said=$("$python" -c "import sys, torch; sys.exit(0 if '$gpu' == '' or torch.cuda.is_available() else 'torch sees no GPU')" 2>&1); then
    missing+=("PyTorch: $python says $(tail -n 1 <<<"$said")")
fi
if [ -n "$sanitize" ] && ! command -v compute-sanitizer >/dev/null; then
    missing+=("compute-sanitizer, for --sanitize: it comes with NVIDIA's toolkit")
fi
if [ ${#missing[@]} -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}"
    exit 75
fi
has_mlx() { "$1" -c 'import numpy, mlx.core as mx' 2>/dev/null; }
if [ -z "$mlx" ] && has_mlx "$python"; then mlx=$python; fi
others=(--pytorch "$python")
if [ -n "$mlx" ]; then others+=(--mlx "$mlx"); else echo "MLX is left out: $python has no mlx[cuda] and numpy"; fi

mkdir -p "$out"
"$binary" bench --device "$device" --dtype "$dtype" "${others[@]}" ${quick[@]+"${quick[@]}"} \
    --ops matmul,softmax,rms_norm,lora_linear,lora_delta,lora_linear+backward,lora_delta+backward \
    --markdown --json "$out/rows.json" >"$out/bench.md"
{
    if [ -n "$gpu" ]; then
        echo "- card and driver: $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)"
    fi
    "$python" scripts/comparison.py "$out/rows.json" "$out/bench.md"
} >"$out/table.md"
cat "$out/table.md"

if [ -n "$sanitize" ]; then
    "$binary" verify --device "$device" --quick | tee "$out/verify.txt" | tail -n 1
    # The bounds keep each under a quarter of an hour: a checked kernel is a thousand times slower.
    compute-sanitizer --tool memcheck --error-exitcode 1 "$binary" verify --device "$device" --quick --unpooled --largest 60000 \
        >"$out/memcheck.txt" 2>&1 || { tail -n 20 "$out/memcheck.txt"; exit 1; }
    compute-sanitizer --tool racecheck --error-exitcode 1 "$binary" verify --device "$device" --quick --largest 1500 \
        >"$out/racecheck.txt" 2>&1 || { tail -n 20 "$out/racecheck.txt"; exit 1; }
    tail -n 2 "$out/memcheck.txt" "$out/racecheck.txt"
fi
echo "results: $out"
