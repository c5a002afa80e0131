"""Greedy text beside llama.cpp's, from the same GGUF file.

    python3 -m venv venv
    venv/bin/pip install llama-cpp-python
    cargo build --release -p candlewick-cli
    venv/bin/python scripts/parity/with_llama_cpp.py MODEL.gguf

64 tokens behind each of ten prompts, twice: from the weights dequantised to f32, by both, where nothing is rounded but in
f32 (llama.cpp's cache is in f32 too), so that the texts must be equal; and from the blocks, where llama.cpp rounds the
activations of each product to 8 bits, so that texts may part where two tokens are nearly as likely: how far apart the two
were in f32 is printed. Exits with 1 where the texts from f32 differ.
"""

import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT = 64


def ours(binary, model, device, prompts, *more):
    """The tokens behind each prompt, by Candlewick."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(prompt + "\n" for prompt in prompts))
        file.flush()
        flags = ["--prompts", file.name, "--batch", "1", "--json", "--ignore-end", "--device", device, *more]
        command = [binary, "generate", "--model", model, "--max-tokens", str(COUNT), *flags]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line)["tokens"] for line in run.stdout.splitlines()]


class Theirs:
    """llama.cpp on a file."""

    def __init__(self, model):
        f32 = llama_cpp.GGML_TYPE_F32
        self.llama = llama_cpp.Llama(str(model), n_ctx=512, logits_all=True, verbose=False, type_k=f32, type_v=f32)

    def greedy(self, prompt):
        """Tokens, and the logits that each was chosen from."""
        self.llama.reset()
        self.llama.eval(self.llama.tokenize(prompt.encode()))
        tokens, logits = [], []
        for _ in range(COUNT):
            logits.append(np.array(self.llama.scores[self.llama.n_tokens - 1]))
            tokens.append(int(logits[-1].argmax()))
            self.llama.eval([tokens[-1]])
        return tokens, logits

    def word(self, token):
        return self.llama.detokenize([token]).decode(errors="replace")


def dequantised(model, to):
    """The same model with every weight in f32, by llama.cpp itself."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    assert llama_cpp.llama_model_quantize(str(model).encode(), str(to).encode(), ctypes.byref(params)) == 0


def first_difference(left, right):
    return next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a GGUF file")
    parser.add_argument("--candlewick", default=ROOT / "target/release/candlewick", help="the command")
    parser.add_argument("--device", default="cpu", help="where Candlewick runs: cpu, cuda, metal")
    args = parser.parse_args()
    prompts = (ROOT / "scripts/parity/prompts.txt").read_text().splitlines()
    run = lambda *more: ours(args.candlewick, args.model, args.device, prompts, *more)
    kept, wide = run(), run("--dequantise")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "f32.gguf"
        dequantised(args.model, file)
        quantised, exact = Theirs(args.model), Theirs(file)
        equal = [0, 0]
        for prompt, of_blocks, of_f32 in zip(prompts, kept, wide):
            (rounded, _), (expected, logits) = quantised.greedy(prompt), exact.greedy(prompt)
            print(f"{prompt!r}")
            at = first_difference(of_f32, expected)
            equal[0] += at is None
            print(f"  from f32: {COUNT if at is None else at} tokens equal")
            at = first_difference(of_blocks, rounded)
            equal[1] += at is None
            if at is None:
                print(f"  from the blocks: {COUNT} tokens equal")
                continue
            a, b = of_blocks[at], rounded[at]
            # What f32 says of the two, if it came by here too.
            same = expected[:at] == rounded[:at]
            gap = f"{logits[at][a] - logits[at][b]:.3f} apart in f32" if same else "after another text in f32"
            print(f"  from the blocks: {at} tokens equal, then {quantised.word(b)!r} for {quantised.word(a)!r}, {gap}")
    print(f"equal for all {COUNT} tokens: {equal[0]} of {len(prompts)} from f32, {equal[1]} from the blocks")
    sys.exit(0 if equal[0] == len(prompts) else 1)


if __name__ == "__main__":
    main()
