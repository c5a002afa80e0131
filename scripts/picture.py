"""The README's picture from runs of `candlewick bench --json`: picture.py OUT.svg TITLE=ROWS.json [TITLE=ROWS.json ..]

    python3 -m venv venv
    venv/bin/pip install matplotlib
    venv/bin/python scripts/picture.py docs/latency.svg "One H100, bf16=target/compare/rows.json"

A panel for each run: how long one operation takes when it is waited for, for everybody who was measured in that run, each
in the faster of his settings. Shorter is better; the axis is logarithmic.
"""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

CASES = [("matmul", "256x256x256", "matmul 256"), ("softmax", "128x4096", "softmax 128x4096"),
         ("rms_norm", "128x4096", "RMSNorm 128x4096"), ("lora_linear", "32x512x512 r8", "LoRA layer 32x512 r8"),
         ("lora_linear", "64x1024x1024 r16", "LoRA layer 64x1024 r16"),
         ("lora_linear", "1x4096x4096 r16", "LoRA layer 1x4096 r16"),
         ("lora_linear+backward", "256x512x512 r8", "LoRA fwd + bwd 256x512 r8")]
MAKERS = [("Candlewick", "#d9480f"), ("Candle", "#868e96"), ("PyTorch", "#4263eb"), ("MLX", "#2b8a3e")]


def maker(engine):
    if "/" in engine:
        return "Candlewick"
    return {"candle": "Candle", "pytorch": "PyTorch"}.get(engine, "MLX" if engine.startswith("mlx") else None)


def panel(axes, title, path):
    with open(path) as file:
        rows = json.load(file)
    times = {}
    for row in rows:
        cell = (row["op"], row["shape"], maker(row["engine"]))
        if row["regime"] == "latency" and cell[2]:
            times[cell] = min(row["microseconds"]["median"], times.get(cell, float("inf")))
    cases = [case for case in CASES if (*case[:2], "Candlewick") in times]
    present = [one for one in MAKERS if any((*case[:2], one[0]) in times for case in cases)]
    height = 0.8 / len(present)
    for nth, (name, color) in enumerate(present):
        found = [(i, times[*case[:2], name]) for i, case in enumerate(cases) if (*case[:2], name) in times]
        places = [i + (nth - (len(present) - 1) / 2) * height for i, _ in found]
        bars = axes.barh(places, [time for _, time in found], height * 0.9, color=color, label=name)
        axes.bar_label(bars, [f"{time:.0f}" if time >= 99.95 else f"{time:.3g}" for _, time in found], padding=2, fontsize=7)
    axes.set_yticks(range(len(cases)), [case[2] for case in cases])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("microseconds, waited for: shorter is better")
    axes.spines[["top", "right"]].set_visible(False)
    return axes.get_legend_handles_labels()


def main():
    out, *runs = sys.argv[1:]
    figure, all_axes = plt.subplots(1, len(runs), figsize=(6.2 * len(runs), 4.6), squeeze=False)
    for axes, run in zip(all_axes[0], runs):
        title, path = run.rsplit("=", 1)
        legend = panel(axes, title, path)
    figure.legend(*legend, loc="lower center", ncols=len(legend[1]), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(out, facecolor="white", metadata={"Date": None})


main()
