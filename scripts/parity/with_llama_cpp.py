"""Greedy text beside llama.cpp's, from the same GGUF file.

    python3 -m venv venv
    venv/bin/pip install llama-cpp-python
    cargo build --release -p candlewick-cli
    venv/bin/python scripts/parity/with_llama_cpp.py MODEL.gguf

64 tokens behind each of ten prompts. llama.cpp rounds activations to 8 bits in products with quantised weights, so where
the two differ, the first difference must be a near tie: the gap between the two tokens' logits, as llama.cpp computes them,
is printed, in units of the spread that its rounding alone causes (between its own logits with one token per batch and with
all in one). Exits with 1 where a difference is no tie.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from llama_cpp import Llama

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = 64
# A gap of this many logits between two tokens is no tie.
TIE = 0.5


def ours(binary, model, device, prompts):
    """The tokens behind each prompt, by Candlewick."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(prompt + "\n" for prompt in prompts))
        file.flush()
        flags = ["--prompts", file.name, "--batch", "1", "--json", "--ignore-end", "--device", device]
        command = [binary, "generate", "--model", model, "--max-tokens", str(COUNT), *flags]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line)["tokens"] for line in run.stdout.splitlines()]


def theirs(llama, prompt):
    """Greedy tokens, and the logits that each was chosen from."""
    llama.reset()
    llama.eval(prompt)
    tokens, logits = [], []
    for _ in range(COUNT):
        logits.append(np.array(llama.scores[llama.n_tokens - 1]))
        tokens.append(int(logits[-1].argmax()))
        llama.eval([tokens[-1]])
    return tokens, logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file")
    parser.add_argument("--candlewick", default=ROOT / "target/release/candlewick", help="the command")
    parser.add_argument("--device", default="cpu", help="where Candlewick runs: cpu, cuda, metal")
    args = parser.parse_args()
    llama = Llama(str(args.model), n_ctx=512, logits_all=True, verbose=False)
    prompts = (ROOT / "scripts/parity/prompts.txt").read_text().splitlines()
    found, good, equal = ours(args.candlewick, args.model, args.device, prompts), True, 0
    for prompt, tokens in zip(prompts, found):
        expected, logits = theirs(llama, llama.tokenize(prompt.encode()))
        first = next((i for i, (a, b) in enumerate(zip(tokens, expected)) if a != b), None)
        if first is None:
            equal += 1
            print(f"{prompt!r}: {COUNT} tokens equal")
            continue
        a, b = tokens[first], expected[first]
        gap = float(logits[first][b] - logits[first][a])
        words = [llama.detokenize([token]).decode(errors="replace") for token in (a, b)]
        print(f"{prompt!r}: {first} tokens equal, then {words[0]!r} for {words[1]!r}: {gap:.3f} logits apart there")
        good &= gap <= TIE
    print(f"{equal} of {len(prompts)} equal for all {COUNT} tokens")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
