"""LoRA training beside PyTorch + PEFT: same weights, data, first adapter and hyperparameters.

  pip install torch transformers peft tokenizers
  python scripts/parity/peft_train.py fixture crates/candlewick-lm/tests/fixtures/peft.json
  python scripts/parity/peft_train.py live target/release/candlewick [--shape smollm2] [--steps 50] [--precision f32]

`fixture` trains a tiny model and writes every loss and the gradients of the first step, for the repository's tests, which
make the same model, data and adapter from the same seeds. `live` makes a model with random weights, lets the command and
PEFT train the same adapter on the same lines, compares the losses, and loads the command's adapter in PEFT.
"""

import argparse, json, math, os, subprocess, sys, tempfile, time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

LAYER = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


class Random:
    """SplitMix64, as `candlewick_model::testing::Random`."""

    def __init__(self, state):
        self.state = state

    def bits(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    def number(self):
        """A multiple of 2^-23 between -1 and 1."""
        return (self.bits() >> 40) / (1 << 23) - 1.0

    def tensor(self, shape, scale, middle=0.0):
        count = math.prod(shape)
        numbers = torch.tensor([self.number() for _ in range(count)], dtype=torch.float32)
        return (numbers * scale + middle).reshape(shape)


def tiny():
    """`TinyModel::new(tiny_config(Family::Llama), f32, 1)`."""
    config = LlamaConfig(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=128,
                         rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)
    model = LlamaForCausalLM(config)
    state, random = model.state_dict(), Random(1)
    names = ["model.embed_tokens"] + [f"model.layers.{i}.{part}" for i in range(2) for part in LAYER]
    for name in names + ["model.norm", "lm_head"]:
        weight = state[name + ".weight"]
        weight.copy_(random.tensor(weight.shape, 0.2, 1.0 if weight.dim() == 1 else 0.0))
    return model


def documents(random):
    """One step's: tokens, and the label of each position or -100."""
    for length in [21, 12, 17, 8, 26]:
        tokens = [random.bits() % 320 for _ in range(length)]
        yield tokens, [token if at > 0 and at % 4 != 3 else -100 for at, token in enumerate(tokens)]


def padded(pairs):
    """A batch with one document a row: transformers pads where Candlewick packs."""
    pairs = list(pairs)
    longest = max(len(tokens) for tokens, _ in pairs)
    pad = lambda numbers, value: numbers + [value] * (longest - len(numbers))
    return dict(input_ids=torch.tensor([pad(tokens, 0) for tokens, _ in pairs]),
                labels=torch.tensor([pad(labels, -100) for _, labels in pairs]),
                attention_mask=torch.tensor([pad([1] * len(tokens), 0) for tokens, _ in pairs]))


def train(model, batches, rate, decay, clip, on_first=None):
    """The losses and gradient norms of a linear schedule."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / steps)
    losses, norms = [], []
    for batch in batches:
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        if on_first and not losses:
            on_first(model)
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, clip).item())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses, norms


def fixture(path):
    torch.manual_seed(0)
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(tiny(), LoraConfig(r=4, lora_alpha=8, target_modules=targets, lora_dropout=0.0))
    modules = [f"model.layers.{i}.{part}" for i in range(2) for part in LAYER if part.split(".")[-1] in targets]
    random, named = Random(2), dict(model.named_parameters())
    factor = lambda module, which: named[f"base_model.model.{module}.lora_{which}.default.weight"]
    with torch.no_grad():
        for module in modules:
            for which, scale in [("A", 0.125), ("B", 0.0625)]:
                weight = factor(module, which)
                weight.copy_(random.tensor(weight.shape, scale))
    gradients = []

    def keep(_):
        digits = lambda weight: [float(f"{x:.7g}") for x in weight.grad.flatten().tolist()]
        gradients.extend([module, digits(factor(module, "A")), digits(factor(module, "B"))] for module in modules)

    random = Random(3)
    batches = 10 * [padded(documents(random)) for _ in range(5)]
    losses, norms = train(model, batches, 1e-2, 0.1, 0.5, keep)
    with open(path, "w") as file:
        json.dump({"losses": losses, "gradient_norms": norms, "gradients": gradients}, file, separators=(",", ":"))
    print(f"loss {losses[0]:.6f} -> {losses[-1]:.6f}; wrote {path}, {os.path.getsize(path)} bytes")


def byte_tokenizer(folder):
    """A tokenizer whose tokens are bytes, behind one token that ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|end|>": 0} | {letter: nth + 1 for nth, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump({"eos_token": "<|end|>"}, file)
    return tokenizer


def live(command, shape, steps, precision, targets):
    sizes = dict(tiny=dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                           num_attention_heads=4, num_key_value_heads=2),
                 smollm2=dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                              num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0,
                                         bos_token_id=0, eos_token_id=0, **sizes[shape]))
    rank, rate = 8, 1e-3
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        model.save_pretrained(path("model"))
        tokenizer = byte_tokenizer(path("model"))
        lines = [{"prompt": f"{nth} + {nth + 3} = ", "completion": f"{2 * nth + 3}, which is {'odd' if nth % 2 == 0 else 'odd too'}"}
                 for nth in range(steps)]
        with open(path("data.jsonl"), "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        peft = get_peft_model(model, LoraConfig(r=rank, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM"))
        with torch.no_grad():  # A first adapter that does something, so that every gradient is something.
            for name, weight in peft.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.01)
        peft.save_pretrained(path("first"))
        arguments = [command, "train", "--model", path("model"), "--data", path("data.jsonl"), "--out", path("out"),
                     "--adapter", path("first"), "--rank", str(rank), "--alpha", "16", "--targets", ",".join(targets),
                     "--sequence", "64", "--no-packing", "--no-shuffle", "--steps", str(steps), "--schedule", "linear",
                     "--learning-rate", str(rate), "--precision", precision, "--validation", path("data.jsonl"),
                     "--validate-every", "0"]
        start = time.time()
        subprocess.run(arguments, check=True)
        print(f"candlewick: {time.time() - start:.1f} s")
        metrics = [json.loads(line) for line in open(path("out/metrics.jsonl"))]
        ours = [line["loss"] for line in metrics if line["kind"] == "step"]
        batches = []
        for line in lines:
            prompt = tokenizer.encode(line["prompt"]).ids
            answer = tokenizer.encode(line["completion"]).ids + [0]
            batches.append(padded([(prompt + answer, [-100] * len(prompt) + answer)]))
        start = time.time()
        theirs, _ = train(peft, batches, rate, 0.01, 1.0)
        print(f"PEFT: {time.time() - start:.1f} s")
        worst = max(abs(a / b - 1) for a, b in zip(ours, theirs))
        print(f"losses over {steps} steps: {ours[0]:.6f} -> {ours[-1]:.6f}, PEFT {theirs[0]:.6f} -> {theirs[-1]:.6f}; "
              f"largest difference {100 * worst:.4f}%")
        # The command's adapter in PEFT: the same loss as the command has found of it, and the same logits as PEFT's own.
        plain = LlamaForCausalLM.from_pretrained(path("model"), dtype=torch.float32)
        loaded = PeftModel.from_pretrained(plain, path("out")).eval()
        validations = [line for line in metrics if line["kind"] == "validation"]
        best = min(validations, key=lambda line: line["loss"])
        total, count, apart, largest = 0.0, 0, 0.0, 0.0
        with torch.no_grad():
            for batch in batches:
                learned = (batch["labels"] != -100).sum().item()
                out = loaded(**batch)
                total, count = total + out.loss.item() * learned, count + learned
                apart = max(apart, (out.logits - peft(**batch).logits).abs().max().item())
                largest = max(largest, out.logits.abs().max().item())
        print(f"loaded in PEFT: loss {total / count:.6f}, the command says {best['loss']:.6f}; "
              f"logits differ from the adapter that PEFT trained by {apart / largest:.1e} of the largest")
        within = 0.01 if precision == "f32" else 0.05
        if worst > within or abs(total / count / best["loss"] - 1) > (1e-4 if precision == "f32" else 0.02):
            sys.exit("NOT the same")
        print("the same")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="mode", required=True)
    commands.add_parser("fixture").add_argument("path")
    other = commands.add_parser("live")
    other.add_argument("command")
    other.add_argument("--shape", choices=["tiny", "smollm2"], default="tiny")
    other.add_argument("--steps", type=int, default=50)
    other.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    other.add_argument("--targets", type=lambda text: text.split(","), default=["q_proj", "v_proj", "down_proj"])
    arguments = parser.parse_args()
    if arguments.mode == "fixture":
        fixture(arguments.path)
    else:
        live(arguments.command, arguments.shape, arguments.steps, arguments.precision, arguments.targets)
