"""What every Python peer of `candlewick bench` shares: a line of JSON in, a line of JSON out; timing as bench/timing.rs does it.

A peer is this text, then its own, run as one program. Arguments: a device (cpu, cuda:0, mps), a number of threads.
"""
import json
import signal
import sys
import time

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback.
DEVICE, THREADS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
KIND = DEVICE.split(":")[0]
SCALE, EPS, ENQUEUED, RECORDED = 2.0, 1e-6, 50, 200


def say(**reply):
    print(json.dumps(reply), flush=True)


def sizes_of(case):
    """`lora_linear+backward 32x512x512 r8 bf16`: the operation, its family, sizes, rank and dtype."""
    op, *shape, dtype = case.split()
    family = op.split("_backward")[0].split("+")[0]
    rank = int(shape[1][1:]) if len(shape) > 1 else 0
    return op, family, [int(size) for size in shape[0].split("x")], rank, dtype


def clock_cost():
    costs = sorted(-(time.perf_counter() - time.perf_counter()) for _ in range(1001))
    return costs[len(costs) // 2]


CLOCK = clock_cost()


def measure(submit, wait, regime, seconds):
    """Microseconds per call; the first calls are dropped."""
    clock = time.perf_counter
    start, count = clock(), 0
    while True:
        submit()
        wait()
        count += 1
        elapsed = clock() - start
        if elapsed >= seconds / 5 and (count > 1 or elapsed >= 2 * seconds / 5):
            break
    run = {"latency": 1, "enqueue": ENQUEUED, "replay": 1}.get(regime) or max(2, int(seconds / 4 / (elapsed / count)))
    samples, begin = [], clock()
    while not samples or len(samples) < 2000 and clock() - begin < seconds:
        start = clock()
        for _ in range(run):
            submit()
        submitted = clock()
        wait()
        end = submitted if regime == "enqueue" else clock()
        samples.append(max(0, end - start - CLOCK) / run * 1e6)
    return samples


def serve(library):
    """`library` has name, version, built, threads; prepare(case), submit(), wait(), outputs(counts); where it can, record(count),
    which returns a call that replays so many; where there is more to say, engine (what its rows are called) and note."""
    say(hello={"name": library.name, "version": library.version, "threads": library.threads, "built": library.built,
               "replays": hasattr(library, "record")})
    for line in sys.stdin:
        (request, value), = json.loads(line).items()
        try:
            if request == "prepare":
                library.prepare(value)
                say(prepared={"engine": getattr(library, "engine", library.name.lower()), "threads": None,
                              "note": getattr(library, "note", None)})
            elif request == "measure":
                if value[0] == "replay":
                    replay = library.record(RECORDED)
                    samples = measure(replay, library.wait, *value)
                    say(samples=[sample / RECORDED for sample in samples])
                else:
                    say(samples=measure(library.submit, library.wait, *value))
            elif request == "outputs":
                say(outputs=library.outputs(value))
        except Exception as error:
            say(error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
