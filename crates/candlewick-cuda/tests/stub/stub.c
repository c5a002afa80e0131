// Stands in for libcuda, libnvrtc and libcublasLt in tests: remembers every call in order, keeps device memory in host
// memory, runs no kernel, and fails when it is told to. Each copy of the library has a state of its own.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int u32;
typedef uint64_t u64;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// ---- what tests ask and set ----

#define MOST 65536
static const char *calls[MOST];
static int call_count;

struct launch {
    const char *name;
    u32 grid[3], threads, shared, attributes;
    u64 stream, arguments[9];
    // Recorded: it does not run yet.
    int recorded;
};
static struct launch launches[MOST];
static int launch_count, arguments_to_read;

static const char *failing;
static int failing_at, failing_with, broken_with;
static u64 memory_limit = 1ull << 40, memory_used;
static int held, gpus = 1, major = 9, minor = 0, driver_version = 13000, nvrtc_version = 13000, recording;
enum kind { allocations, streams, events, modules, graphs, pinned, contexts, objects, kinds };
static int live[kinds];

int stub_calls(void) { return call_count; }
const char *stub_call(int i) { return calls[i]; }
int stub_launches(void) { return launch_count; }
struct launch stub_launch(int i) { return launches[i]; }
void stub_clear(void) { call_count = launch_count = 0; }
int stub_live(int kind) { return live[kind]; }
u64 stub_memory_used(void) { return memory_used; }
// The `nth` call from now on of this name returns `code`.
void stub_fail(const char *name, int nth, int code) { failing = strdup(name), failing_at = nth, failing_with = code; }
// Every call returns it from now on, as after a sticky error.
void stub_break(int code) { broken_with = code; }
void stub_set_memory(u64 bytes) { memory_limit = bytes; }
// Held: no stream gets on, but for the first that was made, until somebody sleeps for another.
void stub_hold(int hold) { held = hold; }
void stub_read_arguments(int count) { arguments_to_read = count; }
void stub_set_device(int count, int capability_major, int capability_minor) {
    gpus = count, major = capability_major, minor = capability_minor;
}
void stub_set_versions(int driver, int nvrtc) { driver_version = driver, nvrtc_version = nvrtc; }

static int enter(const char *name) {
    pthread_mutex_lock(&lock);
    if (call_count < MOST) {
        calls[call_count++] = name;
    }
    int code = broken_with;
    if (failing != NULL && strcmp(failing, name) == 0 && --failing_at == 0) {
        code = failing_with;
        failing = NULL;
    }
    pthread_mutex_unlock(&lock);
    return code;
}
#define ENTER                          \
    do {                               \
        const int code = enter(__func__); \
        if (code != 0) return code;    \
    } while (0)

static void count(enum kind kind, int by) {
    pthread_mutex_lock(&lock);
    live[kind] += by;
    pthread_mutex_unlock(&lock);
}
static void *make(enum kind kind, size_t bytes) {
    count(kind, 1);
    return calloc(1, bytes);
}
static void destroy(enum kind kind, void *object) {
    count(kind, -1);
    free(object);
}

// ---- the driver ----

int cuInit(u32 flags) { ENTER; (void)flags; return 0; }
int cuDriverGetVersion(int *version) { ENTER; *version = driver_version; return 0; }
int cuGetErrorName(int code, const char **text) {
    *text = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_STUB";
    return 0;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == 2 ? "out of memory" : code == 700 ? "an illegal memory access was encountered" : "as told";
    return 0;
}
int cuDeviceGetCount(int *count) { ENTER; *count = gpus; return 0; }
int cuDeviceGet(int *device, int ordinal) { ENTER; *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int bytes, int device) {
    ENTER;
    (void)device;
    snprintf(name, bytes, "Stub GPU");
    return 0;
}
int cuDeviceGetAttribute(int *value, u32 attribute, int device) {
    ENTER;
    (void)device;
    // CUdevice_attribute: 75 and 76 the capability, 16 multiprocessors, 97 shared memory, 38 the level-two cache.
    *value = attribute == 75 ? major : attribute == 76 ? minor : attribute == 16 ? 132 : attribute == 97 ? 232448 : 50 << 20;
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { ENTER; (void)device; *bytes = 80ull << 30; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER;
    (void)device;
    *context = (void *)0xc0;
    count(contexts, 1);
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) { ENTER; (void)device; count(contexts, -1); return 0; }
int cuCtxSetCurrent(void *context) { ENTER; (void)context; return 0; }

struct function {
    struct function *next;
    char name[64];
};
struct module {
    struct function *functions;
};
int cuModuleLoadData(struct module **module, const void *image) {
    ENTER;
    // Its own code, machine code, or PTX.
    if (strncmp(image, "CODE", 4) != 0 && strncmp(image, "\177ELF", 4) != 0 && strncmp(image, "//", 2) != 0) {
        return 200;
    }
    *module = make(modules, sizeof **module);
    return 0;
}
int cuModuleUnload(struct module *module) {
    ENTER;
    for (struct function *function = module->functions, *next; function != NULL; function = next) {
        next = function->next;
        free(function);
    }
    destroy(modules, module);
    return 0;
}
int cuModuleGetFunction(struct function **function, struct module *module, const char *name) {
    ENTER;
    *function = calloc(1, sizeof **function);
    snprintf((*function)->name, sizeof (*function)->name, "%s", name);
    (*function)->next = module->functions;
    module->functions = *function;
    return 0;
}
int cuFuncSetAttribute(void *function, u32 attribute, int value) {
    ENTER;
    (void)function, (void)attribute, (void)value;
    return 0;
}

// The map begins with the address.
int cuTensorMapEncodeTiled(
    u64 *map, u32 dtype, u32 rank, u64 address, const u64 *sizes, const u64 *strides, const u32 *tile, const u32 *steps,
    u32 interleave, u32 swizzle, u32 promotion, u32 fill) {
    ENTER;
    (void)dtype, (void)interleave, (void)swizzle, (void)promotion, (void)fill;
    // As the driver refuses it: what TMA does not take.
    int fits = rank == 2 && address % 16 == 0 && strides[0] % 16 == 0 && sizes[0] > 0 && sizes[1] > 0 && tile[0] * 2 == 128;
    if (!fits || tile[1] == 0 || tile[1] > 256 || steps[0] != 1 || steps[1] != 1) {
        return 1;
    }
    map[0] = address;
    return 0;
}

static int launch(struct launch launch, void **arguments) {
    for (int i = 0; i < arguments_to_read; i++) {
        launch.arguments[i] = *(u64 *)arguments[i];
    }
    pthread_mutex_lock(&lock);
    launch.recorded = recording;
    if (launch_count < MOST) {
        launches[launch_count++] = launch;
    }
    pthread_mutex_unlock(&lock);
    return 0;
}
int cuLaunchKernel(
    struct function *function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void *stream, void **arguments,
    void **extra) {
    ENTER;
    (void)by, (void)bz, (void)extra;
    return launch((struct launch) { function->name, { gx, gy, gz }, bx, shared, 0, (u64)stream, { 0 } }, arguments);
}
struct config {
    u32 grid[3], block[3], shared;
    void *stream, *attributes;
    u32 count;
};
int cuLaunchKernelEx(const struct config *config, struct function *function, void **arguments, void **extra) {
    ENTER;
    (void)extra;
    struct launch record = { function->name, { config->grid[0], config->grid[1], config->grid[2] }, config->block[0],
                             config->shared, config->count, (u64)config->stream, { 0 } };
    return launch(record, arguments);
}

static void *first_stream;
int cuStreamCreate(void **stream, u32 flags) {
    ENTER;
    (void)flags;
    *stream = make(streams, 1);
    first_stream = first_stream == NULL ? *stream : first_stream;
    return 0;
}
int cuStreamDestroy_v2(void *stream) { ENTER; destroy(streams, stream); return 0; }
int cuStreamQuery(void *stream) { ENTER; (void)stream; return held ? 600 : 0; }
int cuStreamSynchronize(void *stream) { ENTER; held = stream == first_stream ? held : 0; return 0; }
int cuStreamIsCapturing(void *stream, u32 *status) { ENTER; (void)stream; *status = recording; return 0; }
int cuStreamBeginCapture_v2(void *stream, u32 mode) { ENTER; (void)stream, (void)mode; recording = 1; return 0; }
int cuStreamEndCapture(void *stream, void **graph) {
    ENTER;
    (void)stream;
    recording = 0;
    *graph = make(graphs, 1);
    return 0;
}
int cuEventCreate(void **event, u32 flags) { ENTER; (void)flags; *event = make(events, 1); return 0; }
int cuEventDestroy_v2(void *event) { ENTER; destroy(events, event); return 0; }
int cuEventRecord(void *event, void *stream) { ENTER; (void)event, (void)stream; return 0; }
int cuEventQuery(void *event) { ENTER; (void)event; return held ? 600 : 0; }
int cuEventSynchronize(void *event) { ENTER; (void)event; held = 0; return 0; }

static int allocate(u64 *address, size_t bytes) {
    if (memory_used + bytes > memory_limit) {
        return 2;
    }
    // Lengths lie in front of what is handed out.
    u64 *memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
    memory[0] = bytes;
    memset(memory + 32, 0xaa, bytes);
    *address = (u64)(memory + 32);
    memory_used += bytes;
    count(allocations, 1);
    return 0;
}
static int release(u64 address) {
    u64 *memory = (u64 *)address - 32;
    memory_used -= memory[0];
    destroy(allocations, memory);
    return 0;
}
int cuMemAlloc_v2(u64 *address, size_t bytes) { ENTER; return allocate(address, bytes); }
int cuMemFree_v2(u64 address) { ENTER; return release(address); }
int cuMemHostAlloc(void **memory, size_t bytes, u32 flags) { ENTER; (void)flags; *memory = make(pinned, bytes); return 0; }
int cuMemFreeHost(void *memory) { ENTER; destroy(pinned, memory); return 0; }
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, void *stream) {
    ENTER;
    (void)stream;
    memcpy((void *)to, from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, void *stream) {
    ENTER;
    (void)stream;
    memcpy(to, (void *)from, bytes);
    return 0;
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void *stream) {
    ENTER;
    (void)stream;
    memcpy((void *)to, (void *)from, bytes);
    return 0;
}
int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, void *stream) {
    ENTER;
    (void)stream;
    memset((void *)to, value, bytes);
    return 0;
}

int cuGraphGetNodes(void *graph, void **nodes, size_t *count) { ENTER; (void)graph, (void)nodes; *count = 3; return 0; }
int cuGraphInstantiateWithFlags(void **executable, void *graph, u64 flags) {
    ENTER;
    (void)graph, (void)flags;
    *executable = make(graphs, 1);
    return 0;
}
int cuGraphUpload(void *executable, void *stream) { ENTER; (void)executable, (void)stream; return 0; }
int cuGraphLaunch(void *executable, void *stream) { ENTER; (void)executable, (void)stream; return 0; }
int cuGraphExecDestroy(void *executable) { ENTER; destroy(graphs, executable); return 0; }
int cuGraphDestroy(void *graph) { ENTER; destroy(graphs, graph); return 0; }

// ---- the compiler: its code is the options and the source's length ----

static char compiled[4096];
static const char compiler_log[] = "kernel.cu(7): error: as told";

int nvrtcVersion(int *major, int *minor) {
    ENTER;
    *major = nvrtc_version / 1000, *minor = nvrtc_version % 1000 / 10;
    return 0;
}
const char *nvrtcGetErrorString(int code) { return code == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_STUB"; }
static const int architectures[] = { 75, 80, 86, 89, 90 };
int nvrtcGetNumSupportedArchs(int *count) { ENTER; *count = sizeof architectures / sizeof *architectures; return 0; }
int nvrtcGetSupportedArchs(int *to) { ENTER; memcpy(to, architectures, sizeof architectures); return 0; }
int nvrtcCreateProgram(
    void **program, const char *source, const char *name, int headers, const char **texts, const char **names) {
    ENTER;
    (void)headers, (void)texts, (void)names;
    snprintf(compiled, sizeof compiled, "CODE %s %zu", name, strlen(source));
    *program = make(objects, 1);
    return 0;
}
int nvrtcDestroyProgram(void **program) { ENTER; destroy(objects, *program); return 0; }
int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    ENTER;
    (void)program;
    for (int i = 0; i < count; i++) {
        strncat(compiled, " ", sizeof compiled - strlen(compiled) - 1);
        strncat(compiled, options[i], sizeof compiled - strlen(compiled) - 1);
    }
    return 0;
}
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { ENTER; (void)program; *bytes = sizeof compiler_log; return 0; }
int nvrtcGetProgramLog(void *program, char *log) {
    ENTER;
    (void)program;
    memcpy(log, compiler_log, sizeof compiler_log);
    return 0;
}
int nvrtcGetCUBINSize(void *program, size_t *bytes) { ENTER; (void)program; *bytes = strlen(compiled); return 0; }
int nvrtcGetCUBIN(void *program, char *code) { ENTER; (void)program; memcpy(code, compiled, strlen(compiled)); return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { ENTER; (void)program; *bytes = strlen(compiled); return 0; }
int nvrtcGetPTX(void *program, char *code) { ENTER; (void)program; memcpy(code, compiled, strlen(compiled)); return 0; }

// ---- matrix products ----

struct heuristic {
    u64 algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
int cublasLtCreate(void **handle) { ENTER; *handle = make(objects, 1); return 0; }
int cublasLtDestroy(void *handle) { ENTER; destroy(objects, handle); return 0; }
size_t cublasLtGetVersion(void) { return 130100; }
const char *cublasLtGetStatusString(int status) { return status == 15 ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_STUB"; }
int cublasLtMatmulDescCreate(u32 **object, u32 compute, u32 scale) {
    ENTER;
    (void)scale;
    *object = make(objects, sizeof compute);
    **object = compute;
    return 0;
}
int cublasLtMatmulDescDestroy(void *object) { ENTER; destroy(objects, object); return 0; }
int cublasLtMatmulDescSetAttribute(void *object, u32 attribute, const void *value, size_t bytes) {
    ENTER;
    (void)object, (void)attribute, (void)value, (void)bytes;
    return 0;
}
int cublasLtMatrixLayoutCreate(void **object, u32 type, u64 rows, u64 cols, int64_t column) {
    ENTER;
    (void)type, (void)rows, (void)cols, (void)column;
    *object = make(objects, 1);
    return 0;
}
int cublasLtMatrixLayoutDestroy(void *object) { ENTER; destroy(objects, object); return 0; }
int cublasLtMatrixLayoutSetAttribute(void *object, u32 attribute, const void *value, size_t bytes) {
    ENTER;
    (void)object, (void)attribute, (void)value, (void)bytes;
    return 0;
}
// The alignment that was asked for last is the algorithm.
static u32 alignment;
int cublasLtMatmulPreferenceCreate(void **object) { ENTER; *object = make(objects, 1); return 0; }
int cublasLtMatmulPreferenceDestroy(void *object) { ENTER; destroy(objects, object); return 0; }
int cublasLtMatmulPreferenceSetAttribute(void *object, u32 attribute, const void *value, size_t bytes) {
    ENTER;
    (void)object, (void)bytes;
    // CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES
    if (attribute == 5) {
        alignment = *(const u32 *)value;
    }
    return 0;
}
int cublasLtMatmulAlgoGetHeuristic(
    void *handle, void *description, void *a, void *b, void *c, void *d, void *preference, int wanted,
    struct heuristic *found, int *count) {
    ENTER;
    (void)handle, (void)description, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)wanted;
    *found = (struct heuristic) { { alignment }, 1024, 0, 1.0f, { 0 } };
    *count = 1;
    return 0;
}
int cublasLtMatmul(
    void *handle, const u32 *description, const float *alpha, const void *a, void *a_layout, const void *b, void *b_layout,
    const float *beta, const void *c, void *c_layout, void *d, void *d_layout, const u64 *algorithm, void *workspace,
    size_t bytes, void *stream) {
    ENTER;
    (void)handle, (void)alpha, (void)a_layout, (void)b_layout, (void)beta, (void)c_layout, (void)d;
    (void)d_layout, (void)workspace, (void)bytes;
    struct launch record = { "cublasLtMatmul", { 0 }, *description, (u32)algorithm[0], 0, (u64)stream, { (u64)a, (u64)b, (u64)c } };
    record.recorded = recording;
    launches[launch_count < MOST ? launch_count++ : MOST - 1] = record;
    return 0;
}
