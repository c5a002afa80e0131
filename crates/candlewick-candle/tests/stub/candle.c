// Stands in for the libraries that Candle's CUDA backend is linked to: candlewick-cuda's stand-in, and what cudarc and Candle
// call beside it. scripts/check-candle-cuda.sh builds it, and adds a function that fails for every other symbol.
#include "../../../candlewick-cuda/tests/stub/stub.c"

// The context is always current.
int cuCtxGetCurrent(void **context) { ENTER; *context = (void *)0xc0; return 0; }
int cuCtxSynchronize(void) { ENTER; return 0; }
int cuStreamWaitEvent(void *stream, void *event, u32 flags) { ENTER; (void)stream, (void)event, (void)flags; return 0; }
int cuMemAllocAsync(u64 *address, size_t bytes, void *stream) { ENTER; (void)stream; return allocate(address, bytes); }
int cuMemFreeAsync(u64 address, void *stream) { ENTER; (void)stream; return release(address); }

// Candle makes both for every device, whatever it computes.
int cublasCreate_v2(void **handle) { ENTER; *handle = make(objects, 1); return 0; }
int cublasDestroy_v2(void *handle) { ENTER; destroy(objects, handle); return 0; }
int cublasSetStream_v2(void *handle, void *stream) { ENTER; (void)handle, (void)stream; return 0; }
// Candle's own products, for `candlewick bench` on these stand-ins.
int cublasGemmStridedBatchedEx(void) { ENTER; return 0; }
int cublasSgemmStridedBatched(void) { ENTER; return 0; }
int curandCreateGenerator(void **generator, u32 kind) { ENTER; (void)kind; *generator = make(objects, 1); return 0; }
int curandDestroyGenerator(void *generator) { ENTER; destroy(objects, generator); return 0; }
int curandSetStream(void *generator, void *stream) { ENTER; (void)generator, (void)stream; return 0; }
int curandSetPseudoRandomGeneratorSeed(void *generator, u64 seed) { ENTER; (void)generator, (void)seed; return 0; }
