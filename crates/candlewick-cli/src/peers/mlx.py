"""MLX as a peer of `candlewick bench`; protocol.py comes before it. MLX is lazy: a call is submitted with `async_eval`."""
try:
    import mlx.core as mx
    import numpy as np
except ImportError as error:
    say(error=f"{sys.executable} has no mlx ({error}): pip install mlx numpy (on Linux mlx[cpu] or mlx[cuda])")
    sys.exit()
if KIND == "cpu":
    mx.set_default_device(mx.cpu)
elif not mx.is_available(mx.gpu) or KIND == "cuda" and not (hasattr(mx, "cuda") and mx.cuda.is_available()):
    say(error=f"this MLX sees no device {DEVICE}" + (": pip install mlx[cuda13] or mlx[cuda12]" if KIND == "cuda" else ""))
    sys.exit()
else:
    mx.set_default_device(mx.Device(mx.gpu, int((DEVICE.split(":") + [0])[1])))

DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


def numbers(seed, rows, cols, dtype):
    """The numbers of bench/operands.rs: multiples of 2^-23, exact in f32."""
    mask = 0xFFFFFFFF
    h = (np.arange(rows * cols, dtype=np.int64) * 0x9E3779B1 + (seed * 0x85EBCA77 & mask)) & mask
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & mask
    h = ((h ^ (h >> 12)) * 0x297A2D39) & mask
    h = h ^ (h >> 15)
    return mx.array(((h >> 8) / (1 << 23) - 1).reshape(rows, cols).astype(np.float32)).astype(dtype)


def prepare(case):
    """The call to time, which returns y, then the gradients; and whether each is a transpose of what is compared."""
    op, family, sizes, rank, dtype = sizes_of(case)
    if op.endswith("_backward"):
        raise ValueError("MLX's backward cannot be called without its forward")
    make = lambda seed, rows, cols: numbers(seed, rows, cols, DTYPES[dtype])
    if family == "matmul":
        m, n, k = sizes
        leaves, transposed, out = [make(0, m, k), make(1, k, n)], [False, False], (m, n)
        forward = lambda a, b: a @ b
    elif family == "softmax":
        leaves, transposed, out = [make(0, *sizes)], [False], sizes
        forward = lambda x: mx.softmax(x, axis=-1)
    elif family == "rms_norm":
        leaves, transposed, out = [make(0, *sizes), make(1, 1, sizes[1])[0]], [False, False], sizes
        forward = lambda x, weight: mx.fast.rms_norm(x, weight, EPS)
    else:
        rows, inner, outer = sizes
        base = 1 if family == "lora_linear" else 0
        flip = lambda tensor: mx.contiguous(tensor.T)
        w = flip(make(1, outer, inner)) if base else None
        leaves = [make(0, rows, inner), flip(make(1 + base, rank, inner)), flip(make(2 + base, outer, rank))]
        transposed, out = [False, True, True], (rows, outer)
        forward = (lambda x, a, b: x @ w + (x @ a @ b) * SCALE) if base else (lambda x, a, b: (x @ a @ b) * SCALE)
        mx.eval(w) if base else None
    mx.eval(leaves)
    if op == family:
        return lambda: [forward(*leaves)], [False]
    dy = make(9, *out)
    mx.eval(dy)

    def both():
        y, gradients = mx.vjp(forward, leaves, [dy])
        return y + gradients

    return both, [False] + transposed


class MLX:
    name, version, threads, built = "MLX", mx.__version__, 1, str(mx.default_device())
    call = transposed = None

    def prepare(self, case):
        self.call, self.transposed = prepare(case)
        mx.eval(self.call())

    def submit(self):
        mx.async_eval(self.call())

    def wait(self):
        mx.synchronize()

    def outputs(self, counts):
        firsts = zip(self.call(), self.transposed, counts)
        flat = ((y.T if t else y).reshape(-1)[:n].astype(mx.float32) for y, t, n in firsts)
        return [numbers.tolist() for numbers in flat]


class OnGpu(MLX):
    """It records nothing: what comes closest to a replay is many calls in one evaluation."""
    engine = "mlx on " + {"cuda": "CUDA", "metal": "Metal"}.get(KIND, KIND)
    built = f"{mx.default_device()}, {KIND}"
    note = f"replay is one lazy evaluation of {RECORDED} calls, built anew each time"

    def record(self, count):
        return lambda: mx.async_eval([self.call() for _ in range(count)])


serve(MLX() if KIND == "cpu" else OnGpu())
