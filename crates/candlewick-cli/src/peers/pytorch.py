"""PyTorch as a peer of `candlewick bench`: a line of JSON in, a line of JSON out. Arguments: a device (cpu, cuda, mps), a number of threads."""
import json
import signal
import sys
import time

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback.
ENQUEUED = 50


def say(**reply):
    print(json.dumps(reply), flush=True)


try:
    import torch
except ImportError as error:
    say(error=f"{sys.executable} has no torch ({error}): pip install torch, or name another Python")
    sys.exit()
DEVICE = sys.argv[1]
if len(sys.argv) > 2:
    torch.set_num_threads(int(sys.argv[2]))
KIND = DEVICE.split(":")[0]
if KIND != "cpu" and not getattr(torch, KIND).is_available():
    say(error=f"this PyTorch sees no device {DEVICE}")
    sys.exit()
WAIT = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(KIND, lambda: None)

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SCALE, EPS = 2.0, 1e-6


def numbers(seed, rows, cols, dtype):
    """The numbers of bench/operands.rs."""
    mask = 0xFFFFFFFF
    h = (torch.arange(rows * cols, dtype=torch.int64) * 0x9E3779B1 + (seed * 0x85EBCA77 & mask)) & mask
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & mask
    h = ((h ^ (h >> 12)) * 0x297A2D39) & mask
    h = h ^ (h >> 15)
    return ((h >> 8).double() / (1 << 23) - 1).reshape(rows, cols).to(dtype).to(DEVICE)


def prepare(text):
    """The call to time, which returns y or the gradients or both, and whether each is a transpose of what is compared."""
    op, *shape, dtype = text.split()
    dtype, family = DTYPES[dtype], op.split("_backward")[0].split("+")[0]
    sizes = [int(size) for size in shape[0].split("x")]
    rank = int(shape[1][1:]) if len(shape) > 1 else 0
    make = lambda seed, rows, cols: numbers(seed, rows, cols, dtype)
    if family == "matmul":
        m, n, k = sizes
        a, b, y = make(0, m, k), make(1, k, n), make(2, m, n)
        leaves, transposed, out = [a, b], [False, False], (m, n)
        forward = (lambda: torch.mm(a, b, out=y)) if op == family else (lambda: a @ b)
    elif family == "softmax":
        x = make(0, *sizes)
        leaves, transposed, out = [x], [False], sizes
        forward = lambda: torch.softmax(x, -1)
    elif family == "rms_norm":
        x, weight = make(0, *sizes), make(1, 1, sizes[1])[0].clone()
        leaves, transposed, out = [x, weight], [False, False], sizes
        forward = lambda: torch.nn.functional.rms_norm(x, (sizes[1],), weight, EPS)
    else:
        rows, inner, outer = sizes
        base = 1 if family == "lora_linear" else 0
        x = make(0, rows, inner)
        # Transposed in memory too, as the published figures have them.
        w = make(1, outer, inner).t().contiguous() if base else None
        a = make(1 + base, rank, inner).t().contiguous()
        b = make(2 + base, outer, rank).t().contiguous()
        leaves, transposed, out = [x, a, b], [False, True, True], (rows, outer)
        forward = (lambda: x @ w + (x @ a @ b) * SCALE) if base else (lambda: (x @ a @ b) * SCALE)
    if op == family:
        return lambda: (forward(),), [False]
    for leaf in leaves:
        leaf.requires_grad_(True)
    dy = make(9, *out)
    if op.endswith("_backward"):
        y = forward()
        return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), transposed

    def both():
        y = forward()
        return (y, *torch.autograd.grad(y, leaves, dy))

    return both, [False] + transposed


def clock_cost():
    costs = sorted(-(time.perf_counter() - time.perf_counter()) for _ in range(1001))
    return costs[len(costs) // 2]


def measure(call, regime, seconds):
    """As bench/timing.rs: the first calls are dropped; on a CPU there is nothing to wait for."""
    clock = time.perf_counter
    start, count = clock(), 0
    while True:
        call()
        WAIT()
        count += 1
        elapsed = clock() - start
        if elapsed >= seconds / 5 and (count > 1 or elapsed >= 2 * seconds / 5):
            break
    run = {"latency": 1, "enqueue": ENQUEUED}.get(regime) or max(2, int(seconds / 4 / (elapsed / count)))
    samples, begin = [], clock()
    while not samples or len(samples) < 2000 and clock() - begin < seconds:
        start = clock()
        for _ in range(run):
            call()
        submitted = clock()
        WAIT()
        end = submitted if regime == "enqueue" else clock()
        samples.append(max(0, end - start - CLOCK) / run * 1e6)
    return samples


CLOCK = clock_cost()
say(hello={"name": "PyTorch", "version": torch.__version__, "threads": torch.get_num_threads(),
           "built": "CPU capability " + torch.backends.cpu.get_cpu_capability() if DEVICE == "cpu" else DEVICE})
call = transposed = None
for line in sys.stdin:
    (request, value), = json.loads(line).items()
    try:
        if request == "prepare":
            call = None
            call, transposed = prepare(value)
            with torch.set_grad_enabled("backward" in value):
                call()
            grad = "backward" in value
            say(prepared={"engine": "pytorch", "threads": None, "note": None})
        elif request == "measure":
            with torch.set_grad_enabled(grad):
                say(samples=measure(call, *value))
        elif request == "outputs":
            with torch.set_grad_enabled(grad):
                results = call()
            firsts = zip(results, transposed, value)
            say(outputs=[(y.t() if t else y).detach().reshape(-1)[:n].double().tolist() for y, t, n in firsts])
    except Exception as error:
        say(error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
