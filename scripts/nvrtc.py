"""Compiles CUDA sources with NVRTC: nvrtc.py ARCHITECTURE.. -- FILE..  A warning is an error."""

import ctypes
import sys
import sysconfig
from pathlib import Path


def library():
    """libnvrtc of the wheel, wherever its version keeps it."""
    found = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/**/libnvrtc.so.*"))
    return ctypes.CDLL(str(found[0]))


def compile_source(nvrtc, path, architecture):
    """Compiles one file. What the compiler said, and whether it is content."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), path.read_bytes(), path.name.encode(), 0, None, None)
    options = [f"--gpu-architecture={architecture}", "--std=c++17"]
    options = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    result = nvrtc.nvrtcCompileProgram(program, len(options), options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    log = log.value.decode().strip()
    return log, result == 0 and not log


def main():
    split = sys.argv.index("--")
    architectures, files = sys.argv[1:split], [Path(name) for name in sys.argv[split + 1 :]]
    nvrtc, failures = library(), 0
    for architecture in architectures:
        for path in files:
            log, good = compile_source(nvrtc, path, architecture)
            failures += not good
            if not good:
                print(f"{path.name} for {architecture}:\n{log}")
    print(f"{len(files)} sources for {', '.join(architectures)}: {failures} refused")
    sys.exit(failures != 0 or not files)


main()
