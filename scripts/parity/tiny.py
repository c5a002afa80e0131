"""Makes the fixture of candlewick-lm's tests: what transformers and PEFT compute for its small random models.

    python3 -m venv venv
    venv/bin/pip install torch transformers peft
    venv/bin/python scripts/parity/tiny.py

Writes crates/candlewick-lm/tests/fixtures/transformers.json: for each family a prompt, the logits behind it (in f32, and
with an adapter), and greedy tokens.
"""

import json
import pathlib
import subprocess
import tempfile

import peft
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "crates/candlewick-lm/tests/fixtures/transformers.json"
PROMPT = [1, 77, 300, 5, 5, 42, 311, 0, 319, 18, 256]
COUNT = 24


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


def greedy(model):
    """Tokens, and by how much of the largest logit the nearest runner-up was behind."""
    tokens, margin = list(PROMPT), 1.0
    for _ in range(COUNT):
        best = logits(model, tokens).topk(2)
        margin = min(margin, ((best.values[0] - best.values[1]) / best.values[0].abs()).item())
        tokens.append(best.indices[0].item())
    return tokens[len(PROMPT) :], margin


def main():
    families = {}
    with tempfile.TemporaryDirectory() as folder:
        command = ["cargo", "run", "--release", "-q", "-p", "candlewick-lm", "--example", "tiny_models", folder]
        subprocess.run(command, cwd=ROOT, check=True)
        for path in sorted(pathlib.Path(folder).iterdir()):
            model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            tokens, margin = greedy(model)
            print(f"{path.name}: {type(model).__name__}, margin {margin:.1e}")
            numbers = lambda tensor: [float(f"{number:.7g}") for number in tensor.tolist()]
            entry = {"logits": numbers(logits(model, PROMPT)), "greedy": tokens, "margin": margin}
            adapted = peft.PeftModel.from_pretrained(model, path / "adapter").eval()
            entry["adapted_logits"] = numbers(logits(adapted, PROMPT))
            families[path.name] = entry
    versions = {module.__name__: module.__version__ for module in (transformers, peft, torch)}
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_text(json.dumps({"made_with": versions, "prompt": PROMPT, "families": families}) + "\n")


if __name__ == "__main__":
    main()
