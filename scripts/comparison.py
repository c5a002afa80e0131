"""The README's table from one run of `candlewick bench --markdown --json`: comparison.py ROWS.json BENCH.md

One line per case; for every regime Candlewick beside whoever else was measured, in microseconds, the fastest in bold.
"""
import json
import sys

REGIMES = ["enqueue", "latency", "replay"]
OPS = {"rms_norm": "RMSNorm", "lora_linear": "LoRA layer", "lora_delta": "LoRA delta",
       "lora_linear+backward": "LoRA forward + backward", "lora_delta+backward": "LoRA delta forward + backward"}


def maker(engine):
    """Who an engine of a row belongs to: Candlewick's own are named `cuda/mma`."""
    known = {"candlewick-candle": "Candlewick on Candle", "candle": "Candle", "pytorch": "PyTorch"}
    return "Candlewick" if "/" in engine else known.get(engine) or engine.replace("mlx", "MLX", 1)


def figure(time):
    """Three digits, as `bench` prints them."""
    return f"{time:.0f}" if time >= 99.95 else f"{time:.1f}" if time >= 9.995 else f"{time:.2f}"


def table(rows):
    makers, cases = [], {}
    for row in rows:
        case = f"{OPS.get(row['op'], row['op'])} {row['shape']}"
        cell, time = (row["regime"], maker(row["engine"])), row["microseconds"]["median"]
        if cell[1] not in makers:
            makers.append(cell[1])
        # Of several settings the faster: on a CPU, threads.
        times = cases.setdefault(case, {})
        times[cell] = min(time, times.get(cell, time))
    present = {cell for times in cases.values() for cell in times}
    columns = [(regime, name) for regime in REGIMES for name in makers if (regime, name) in present]
    titles = [regime if name == "Candlewick" else name for regime, name in columns]
    lines = ["| | " + " | ".join(titles) + " |", "|---" + "|---:" * len(columns) + "|"]
    for case, times in cases.items():
        cells = []
        for regime, name in columns:
            time = times.get((regime, name))
            fastest = min(other for (its, _), other in times.items() if its == regime) if time else None
            cells.append("" if time is None else f"**{figure(time)}**" if time == fastest else figure(time))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return lines


def main():
    rows, bench = sys.argv[1:]
    with open(rows) as file:
        lines = table(json.load(file))
    with open(bench) as file:
        text = file.read().splitlines()
    # The facts come first; the notes, which end in two spaces, last.
    facts = [line for line in text if line.startswith("- ")]
    notes = [line.strip() for line in text if line.endswith("  ")]
    print("\n".join(facts + ["", *lines, "", "Microseconds; the first column of each regime is Candlewick.", *notes]))


main()
