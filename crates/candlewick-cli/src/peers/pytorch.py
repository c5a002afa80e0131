"""PyTorch as a peer of `candlewick bench`; protocol.py comes before it."""
try:
    import torch
except ImportError as error:
    say(error=f"{sys.executable} has no torch ({error}): pip install torch, or name another Python")
    sys.exit()
if THREADS:
    torch.set_num_threads(THREADS)
if KIND != "cpu" and not getattr(torch, KIND).is_available():
    say(error=f"this PyTorch sees no device {DEVICE}")
    sys.exit()

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def numbers(seed, rows, cols, dtype):
    """The numbers of bench/operands.rs."""
    mask = 0xFFFFFFFF
    h = (torch.arange(rows * cols, dtype=torch.int64) * 0x9E3779B1 + (seed * 0x85EBCA77 & mask)) & mask
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & mask
    h = ((h ^ (h >> 12)) * 0x297A2D39) & mask
    h = h ^ (h >> 15)
    return ((h >> 8).double() / (1 << 23) - 1).reshape(rows, cols).to(dtype).to(DEVICE)


def prepare(case):
    """The call to time, which returns y or the gradients or both, and whether each is a transpose of what is compared."""
    op, family, sizes, rank, dtype = sizes_of(case)
    make = lambda seed, rows, cols: numbers(seed, rows, cols, DTYPES[dtype])
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


class PyTorch:
    name, version, threads = "PyTorch", torch.__version__, torch.get_num_threads()
    built = "CPU capability " + torch.backends.cpu.get_cpu_capability() if KIND == "cpu" else DEVICE
    call = transposed = None
    grad = False

    def prepare(self, case):
        self.call = None
        self.call, self.transposed = prepare(case)
        self.grad = "backward" in case
        self.submit()

    def submit(self):
        with torch.set_grad_enabled(self.grad):
            return self.call()

    def wait(self):
        if KIND != "cpu":
            getattr(torch, KIND).synchronize()

    def outputs(self, counts):
        firsts = zip(self.submit(), self.transposed, counts)
        return [(y.t() if t else y).detach().reshape(-1)[:n].double().tolist() for y, t, n in firsts]


class Recorded(PyTorch):
    """On CUDA, which has graphs."""

    def record(self, count):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                self.submit()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                self.submit()
        return graph.replay


serve(Recorded() if KIND == "cuda" else PyTorch())
