"""A model with SmolLM2-135M's shape and random weights, and what transformers and PEFT take for it: the peers of
compare-gpu-models.sh.

  python scripts/models_peer.py model FOLDER LINES.jsonl   writes the model, and lines to train on
  python scripts/models_peer.py decode FOLDER [--compile]  greedy tokens per second, batch 1, behind 32 tokens
  python scripts/models_peer.py train FOLDER --batch 4 --sequence 256 --targets q_proj,v_proj [--compile]
"""

import argparse, json, statistics, sys, time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, __file__.rsplit("/", 1)[0] + "/parity")

DEVICE, DTYPE = "cuda", torch.bfloat16


def model(folder, lines):
    from peft_train import byte_tokenizer

    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                         num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=2048,
                         rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(DTYPE).save_pretrained(folder)
    byte_tokenizer(folder)
    with open(lines, "w") as file:
        for i in range(40):
            # Longer than any row, so that rows are full.
            text = " ".join(f"{i * j} is {i} times {j};" for j in range(120))
            file.write(json.dumps({"text": text[:511]}) + "\n")


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE).to(DEVICE)


def decode(folder, compile):
    model, tokens = loaded(folder).eval(), 256
    x = torch.randint(0, 49152, (1, 32), device=DEVICE)
    options = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    if compile:
        options["cache_implementation"] = "static"

    def seconds():
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(x, **options)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(3 if compile else 1):
        seconds()
    print(f"{tokens / statistics.median(seconds() for _ in range(3)):.0f}")


def train(folder, batch, sequence, targets, compile):
    from peft import LoraConfig, get_peft_model

    names = "all-linear" if targets == "all-linear" else targets.split(",")
    model = get_peft_model(loaded(folder), LoraConfig(r=8, lora_alpha=16, target_modules=names, lora_dropout=0.0)).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    forward = torch.compile(model) if compile else model
    x = torch.randint(0, 49152, (batch, sequence), device=DEVICE)

    def step():
        torch.cuda.synchronize()
        start = time.perf_counter()
        forward(input_ids=x, labels=x, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(3):
        step()
    median = statistics.median(step() for _ in range(20))
    print(f"{median * 1e3:.1f} ms, {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["model", "decode", "train"])
    parser.add_argument("folder")
    parser.add_argument("lines", nargs="?")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--targets", default="q_proj,v_proj")
    args = parser.parse_args()
    if args.what == "model":
        model(args.folder, args.lines)
    elif args.what == "decode":
        decode(args.folder, args.compile)
    else:
        train(args.folder, args.batch, args.sequence, args.targets, args.compile)
