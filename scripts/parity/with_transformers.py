"""Logits beside transformers' and PEFT's, on the same dequantised weights in f32.

    python3 -m venv venv
    venv/bin/pip install torch transformers gguf accelerate peft
    cargo build --release -p candlewick-lm --example logits
    venv/bin/python scripts/parity/with_transformers.py MODEL.gguf

The model is a GGUF file of the Llama family; SmolLM2 is what `candlewick fetch smollm2` prints. Candlewick runs it twice,
with its blocks kept and with its weights dequantised, and once with an adapter that PEFT has trained here for a few steps.
Exits with 1 where logits differ by more than 1e-3 of the largest. Needs about 2 GB of memory and some minutes on two cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOUND = 1e-3


def ours(binary, model, prompts, *flags):
    """The logits behind each prompt, by Candlewick."""
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    run = subprocess.run([binary, model, *flags], input=lines, capture_output=True, text=True, check=True)
    return [torch.tensor(json.loads(line)) for line in run.stdout.splitlines()]


def theirs(model, prompts):
    """The logits behind each prompt, by transformers."""
    with torch.no_grad():
        return [model(torch.tensor([prompt])).logits[0, -1].float() for prompt in prompts]


def compare(what, found, expected):
    """Prints the worst difference, relative to the largest logit of each prompt."""
    assert len(found) == len(expected)
    worst = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected))
    agree = sum(a.argmax() == b.argmax() for a, b in zip(found, expected))
    print(f"{what:45} {worst:.1e} of the largest logit, {agree} of {len(expected)} likeliest tokens agree")
    return worst <= BOUND


def trained(model, tokenizer, folder):
    """An adapter of every linear layer, trained for a few steps on one text."""
    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    text = "The sea was calm, and the old lighthouse keeper told the children stories of ships and storms. " * 2
    tokens = torch.tensor([tokenizer.encode(text)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for step in range(4):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"PEFT, step {step}: loss {loss.item():.3f}")
    model.eval()
    model.save_pretrained(folder)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file of the Llama family")
    parser.add_argument("--logits", default=ROOT / "target/release/examples/logits", help="Candlewick's example `logits`")
    parser.add_argument("--device", default="cpu", help="where Candlewick runs: cpu, cuda, metal")
    args = parser.parse_args()
    folder, name = str(args.model.parent), args.model.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.eval()
    lines = (ROOT / "scripts/parity/prompts.txt").read_text().splitlines()
    prompts = [tokenizer.encode(line) for line in lines]
    prompts.append(tokenizer.encode(" ".join(lines) * 2))
    expected = theirs(model, prompts)
    run = lambda *flags: ours(args.logits, args.model, prompts, "--device", args.device, *flags)
    good = [
        compare("blocks kept", run(), expected),
        compare("dequantised", run("--dequantise"), expected),
    ]
    with tempfile.TemporaryDirectory() as adapter:
        model = trained(model, tokenizer, adapter)
        with_adapter = theirs(model, prompts)
        moved = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(with_adapter, expected))
        print(f"the adapter moves logits by up to {moved:.2f} of the largest")
        good.append(compare("with the adapter that PEFT trained", run("--adapter", adapter), with_adapter))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
