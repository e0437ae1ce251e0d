// A stand-in for NVIDIA's driver, so that `Driver` can be tested where there is none.
//
// tests/cuda/driver.rs compiles this file as libcuda.so and runs itself with it. Device memory is the heap, and work is done at
// once. A launch runs on the emulated GPU, if there is one in the process (FAKE_ENGINE); if not, it is written, with
// its geometry and the first bytes of its parameter, to the file that FAKE_LOG names. What real drivers refuse and this
// file can know is refused here too: no current context, a stream of another context, a call that may not happen during
// capture, memory that was never allocated.
//
//   FAKE_VERSION=12040      CUDA version of the driver
//   FAKE_GPUS=2             number of GPUs
//   FAKE_CAPABILITY=90      compute capability of all of them, times ten
//   FAKE_FAIL=cuName:700    that function fails with that code
//   FAKE_CLUSTER=4          most blocks of a cluster
//   FAKE_PARAMS=8           bytes of every kernel's parameter, where kernels are not run
//   FAKE_ENGINE=1f0,3c,2a4  fused_rnn_host_kernels, fused_rnn_host_kernel_count, fused_rnn_host_launch: addresses, hex
//   -DWITHOUT_CLUSTERS      at compile time: a driver from before cuLaunchKernelEx
//   -DSTUB                  at compile time: a toolkit's stub, which has all functions and no driver behind them
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPUS = 8, POINTERS = 4096, GIB = 1 << 30 };
enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900
};

// Of the emulated GPU.
typedef struct {
    const char* name;
    void (*entry)(const void*);
    unsigned params_bytes;
} HostKernel;
typedef struct {
    unsigned grid[3], block, cluster, cooperative, shared, compute;
    unsigned long long seed;
    unsigned starve;
} HostLaunch;
typedef int (*Engine)(void (*entry)(const void*), const HostLaunch*, const void*, char*, unsigned);

typedef struct {
    int device;
    int retained;
} Context;
typedef struct {
    Context* context;
} Module;
typedef struct {
    Module* module;
    char name[128];
    int dynamic_shared;
    int non_portable;
    const HostKernel* kernel;
} Function;
// A fill, a launch on the emulated GPU with its parameter, or a launch in words.
typedef struct {
    void* to;
    unsigned char value;
    size_t bytes;
    const HostKernel* kernel;
    HostLaunch launch;
    _Alignas(16) char text[4096];
} Work;
typedef struct {
    int count;
    Work* work;
} Graph;
typedef struct {
    Context* context;
    Graph* capture;
} Stream;
typedef struct {
    unsigned id;
    char pad[4];
    union {
        char pad[64];
        int cooperative;
        unsigned cluster[3];
    } value;
} Attribute;
typedef struct {
    unsigned grid[3], block[3], shared;
    Stream* stream;
    Attribute* attributes;
    unsigned count;
} Config;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Context contexts[GPUS];
static struct {
    void* at;
    size_t bytes;
} pointers[POINTERS];
static int initialised;
static int fault;  // of a kernel; every later call fails with it
static _Thread_local Context* current;

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}
static int fails(const char* function) {
    const char* fail = getenv("FAKE_FAIL");
    size_t length = strlen(function);
    return fail && strncmp(fail, function, length) == 0 && fail[length] == ':' ? atoi(fail + length + 1) : 0;
}
static void say(const char* line) {
    const char* path = getenv("FAKE_LOG");
    FILE* file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", line);
        fclose(file);
    }
}
// The caller's function fails if it was told to, or if there is no context current.
#define MAY_FAIL()                  \
    do {                            \
        int code = fails(__func__); \
        if (code) return code;      \
    } while (0)
#define IN_CONTEXT()                                                    \
    do {                                                                \
        MAY_FAIL();                                                     \
        if (fault) return fault;                                        \
        if (!current || current->retained <= 0) return INVALID_CONTEXT; \
    } while (0)
#define ON_STREAM(s)                                                           \
    do {                                                                       \
        IN_CONTEXT();                                                          \
        if ((size_t)(s) > 2 && (s)->context != current) return INVALID_HANDLE; \
    } while (0)
static Graph* capturing(Stream* s) {
    return (size_t)s > 2 ? s->capture : NULL;
}
static int allocated(void* at, size_t bytes) {
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < POINTERS; ++i) {
        char* from = pointers[i].at;
        if (from && (char*)at >= from && (char*)at + bytes <= from + pointers[i].bytes) found = 1;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

int cuInit(unsigned flags) {
#ifdef STUB
    return 34;
#endif
    MAY_FAIL();
    if (flags) return INVALID_VALUE;
    initialised = 1;
    return setting("FAKE_GPUS", 1) ? 0 : NO_DEVICE;
}
int cuDriverGetVersion(int* version) {
    MAY_FAIL();
    *version = (int)setting("FAKE_VERSION", 12040);
    return 0;
}
int cuGetErrorName(int code, const char** text) {
    switch (code) {
        case INVALID_VALUE:
            *text = "CUDA_ERROR_INVALID_VALUE";
            return 0;
        case OUT_OF_MEMORY:
            *text = "CUDA_ERROR_OUT_OF_MEMORY";
            return 0;
        case NO_DEVICE:
            *text = "CUDA_ERROR_NO_DEVICE";
            return 0;
        case INVALID_CONTEXT:
            *text = "CUDA_ERROR_INVALID_CONTEXT";
            return 0;
        case INVALID_HANDLE:
            *text = "CUDA_ERROR_INVALID_HANDLE";
            return 0;
        case LAUNCH_FAILED:
            *text = "CUDA_ERROR_LAUNCH_FAILED";
            return 0;
        case 700:
            *text = "CUDA_ERROR_ILLEGAL_ADDRESS";
            return 0;
        case CAPTURE_UNSUPPORTED:
            *text = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
            return 0;
    }
    *text = NULL;
    return INVALID_VALUE;
}
int cuGetErrorString(int code, const char** text) {
    (void)code;
    *text = "as the fake driver says";
    return 0;
}

int cuDeviceGetCount(int* count) {
    MAY_FAIL();
    if (!initialised) return NOT_INITIALIZED;
    *count = (int)setting("FAKE_GPUS", 1);
    return 0;
}
int cuDeviceGet(int* device, int ordinal) {
    MAY_FAIL();
    if (ordinal < 0 || ordinal >= setting("FAKE_GPUS", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return 0;
}
int cuDeviceGetName(char* name, int length, int device) {
    MAY_FAIL();
    snprintf(name, (size_t)length, "Fake GPU %d", device);
    return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    MAY_FAIL();
    (void)device;
    *bytes = (size_t)GIB;
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    MAY_FAIL();
    (void)device;
    long capability = setting("FAKE_CAPABILITY", 90);
    switch (attribute) {
        case 13:
            *value = 1980000;
            return 0;  // clock rate, kHz
        case 16:
            *value = 132;
            return 0;  // multiprocessors
        case 75:
            *value = (int)(capability / 10);
            return 0;
        case 76:
            *value = (int)(capability % 10);
            return 0;
        case 95:
            *value = 1;
            return 0;  // cooperative launch
        case 97:
            *value = 232448;
            return 0;  // shared memory that a block may opt in to
        case 120:
            *value = capability >= 90;
            return 0;  // cluster launch
    }
    return INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(Context** context, int device) {
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    contexts[device].device = device;
    contexts[device].retained++;
    pthread_mutex_unlock(&lock);
    *context = &contexts[device];
    return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    pthread_mutex_lock(&lock);
    int left = --contexts[device].retained;
    pthread_mutex_unlock(&lock);
    char line[64];
    snprintf(line, sizeof line, "release context %d, %d left", device, left);
    say(line);
    return 0;
}
int cuCtxGetCurrent(Context** context) {
    *context = current;
    return 0;
}
int cuCtxSetCurrent(Context* context) {
    MAY_FAIL();
    current = context;
    return 0;
}
int cuCtxSynchronize(void) {
    IN_CONTEXT();
    return 0;
}

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    IN_CONTEXT();
    *free = (size_t)GIB / 2;
    *total = (size_t)GIB;
    return 0;
}
int cuMemAlloc_v2(void** at, size_t bytes) {
    IN_CONTEXT();
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > (size_t)GIB) return OUT_OF_MEMORY;
    void* made = aligned_alloc(256, (bytes + 255) / 256 * 256);
    pthread_mutex_lock(&lock);
    for (int i = 0; made && i < POINTERS; ++i) {
        if (!pointers[i].at) {
            pointers[i].at = *at = made;
            pointers[i].bytes = bytes;
            memset(made, 0xff, bytes);  // what stands in new memory is NaN
            made = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
    return made ? OUT_OF_MEMORY : 0;
}
int cuMemFree_v2(void* at) {
    IN_CONTEXT();
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < POINTERS; ++i) {
        if (pointers[i].at == at) {
            pointers[i].at = NULL;
            found = 1;
        }
    }
    pthread_mutex_unlock(&lock);
    if (found) free(at);
    return found ? 0 : INVALID_VALUE;
}
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, Stream* stream) {
    ON_STREAM(stream);
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    if (!allocated(to, bytes)) return INVALID_VALUE;
    memcpy(to, from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, void* from, size_t bytes, Stream* stream) {
    ON_STREAM(stream);
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    if (!allocated(from, bytes)) return INVALID_VALUE;
    memcpy(to, from, bytes);
    return 0;
}
// The emulated GPU's kernels, how many, and what runs them; 0 where there is none.
static int engine(const HostKernel** kernels, unsigned* count, Engine* run) {
    size_t first, number, launch;
    const char* text = getenv("FAKE_ENGINE");
    if (!text || sscanf(text, "%zx,%zx,%zx", &first, &number, &launch) != 3) return 0;
    *kernels = (const HostKernel*)first;
    *count = *(const unsigned*)number;
    *run = (Engine)launch;
    return 1;
}
static void do_work(const Work* work) {
    const HostKernel* kernels;
    unsigned count;
    Engine run;
    char message[1024] = "";
    if (work->to)
        memset(work->to, work->value, work->bytes);
    else if (!work->kernel)
        say(work->text);
    else if (engine(&kernels, &count, &run) &&
             run(work->kernel->entry, &work->launch, work->text, message, sizeof message)) {
        say(message);
        fault = LAUNCH_FAILED;
    }
}
static int give(Stream* stream, const Work* work) {
    Graph* graph = capturing(stream);
    if (!graph) {
        do_work(work);
        return 0;
    }
    graph->work = realloc(graph->work, (size_t)(graph->count + 1) * sizeof *work);
    graph->work[graph->count++] = *work;
    return 0;
}
int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, Stream* stream) {
    ON_STREAM(stream);
    if (!allocated(to, bytes)) return INVALID_VALUE;
    Work work = {.to = to, .value = value, .bytes = bytes};
    return give(stream, &work);
}

int cuModuleLoadDataEx(Module** module, const void* image, unsigned count, const int* options, void** values) {
    IN_CONTEXT();
    if (!image || count != 2 || options[0] != 5 || options[1] != 6) return INVALID_VALUE;  // error log and its size
    const unsigned char* bytes = image;
    // A cubin is an ELF file; PTX is text that begins with a comment or a directive.
    if (memcmp(bytes, "\177ELF", 4) != 0 && bytes[0] != '/' && bytes[0] != '.') {
        snprintf(values[0], (size_t)values[1], "neither a cubin nor PTX");
        return INVALID_IMAGE;
    }
    *module = malloc(sizeof **module);
    (*module)->context = current;
    say("load module");
    return 0;
}
int cuModuleUnload(Module* module) {
    IN_CONTEXT();
    if (module->context != current) return INVALID_CONTEXT;
    free(module);
    say("unload module");
    return 0;
}
int cuModuleGetFunction(Function** function, Module* module, const char* name) {
    IN_CONTEXT();
    *function = calloc(1, sizeof **function);  // lives as long as the process, as tests do
    (*function)->module = module;
    snprintf((*function)->name, sizeof(*function)->name, "%s", name);
    const HostKernel* kernels;
    unsigned count;
    Engine run;
    if (!engine(&kernels, &count, &run)) return 0;
    for (unsigned i = 0; i < count; ++i) {
        if (strcmp(kernels[i].name, name) == 0) (*function)->kernel = &kernels[i];
    }
    return (*function)->kernel ? 0 : NOT_FOUND;
}
int cuFuncLoad(Function* function) {
    IN_CONTEXT();
    char line[160];
    snprintf(line, sizeof line, "load function %s", function->name);
    say(line);
    return 0;
}
int cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
    IN_CONTEXT();
    long bytes = function->kernel ? (long)function->kernel->params_bytes : setting("FAKE_PARAMS", 0);
    if (index || bytes == 0) return INVALID_VALUE;
    *offset = 0;
    *size = (size_t)bytes;
    return 0;
}
int cuFuncGetAttribute(int* value, int attribute, Function* function) {
    IN_CONTEXT();
    (void)function;
    if (attribute != 1) return INVALID_VALUE;
    *value = 0;
    return 0;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
    IN_CONTEXT();
    if (attribute == 8 && value <= 232448) {
        function->dynamic_shared = value;
        return 0;
    }
    if (attribute == 14) {
        function->non_portable = value;
        return 0;
    }
    return INVALID_VALUE;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* count, Function* function, int threads, size_t shared) {
    IN_CONTEXT();
    if (threads <= 0 || threads > 1024 || shared > (size_t)function->dynamic_shared) return INVALID_VALUE;
    *count = shared > 116224 ? 1 : 2;
    return 0;
}

#ifndef WITHOUT_CLUSTERS
static int look(const Config* config, Function* function, unsigned* cluster, int* cooperative) {
    *cluster = 1;
    *cooperative = 0;
    for (unsigned i = 0; i < config->count; ++i) {
        const Attribute* attribute = &config->attributes[i];
        if (attribute->id == 2)
            *cooperative = attribute->value.cooperative;
        else if (attribute->id == 4) {
            *cluster = attribute->value.cluster[0];
            if (attribute->value.cluster[1] != 1 || attribute->value.cluster[2] != 1) return INVALID_VALUE;
        } else
            return INVALID_VALUE;
    }
    for (int i = 0; i < 3; ++i)
        if (config->grid[i] == 0 || config->block[i] == 0) return INVALID_VALUE;
    if (config->block[0] * config->block[1] * config->block[2] > 1024) return INVALID_VALUE;
    if (config->shared > (unsigned)function->dynamic_shared) return INVALID_VALUE;
    if (*cluster > 16 || (*cluster > 8 && !function->non_portable) || config->grid[0] % *cluster) return 912;
    return 0;
}
int cuOccupancyMaxActiveClusters(int* count, Function* function, const Config* config) {
    IN_CONTEXT();
    unsigned cluster;
    int cooperative, code = look(config, function, &cluster, &cooperative);
    *count = 132 / (int)cluster;
    return code;
}
int cuOccupancyMaxPotentialClusterSize(int* size, Function* function, const Config* config) {
    IN_CONTEXT();
    unsigned cluster;
    int cooperative, code = look(config, function, &cluster, &cooperative);
    *size = (int)setting("FAKE_CLUSTER", function->non_portable ? 16 : 8);
    return code;
}
int cuLaunchKernelEx(const Config* config, Function* function, void** params, void** extra) {
    ON_STREAM(config->stream);
    unsigned cluster;
    int cooperative, code = look(config, function, &cluster, &cooperative);
    if (code) return code;
    if (extra || function->module->context != current) return INVALID_VALUE;
    if (cooperative && config->grid[0] * config->grid[1] * config->grid[2] > 264) return 720;
    Work work = {.to = NULL};
    const unsigned char* bytes = params[0];
    if (function->kernel) {
        const unsigned *grid = config->grid, *block = config->block;
        work.kernel = function->kernel;
        work.launch = (HostLaunch){{grid[0], grid[1], grid[2]},
                                   block[0],
                                   cluster,
                                   (unsigned)cooperative,
                                   config->shared,
                                   (unsigned)setting("FAKE_CAPABILITY", 90),
                                   0,
                                   0};
        memcpy(work.text, bytes, function->kernel->params_bytes);
        return give(config->stream, &work);
    }
    snprintf(work.text, sizeof work.text,
             "launch %s on %d grid %u,%u,%u block %u,%u,%u cluster %u cooperative %d shared %u params %02x%02x%02x%02x",
             function->name, current->device, config->grid[0], config->grid[1], config->grid[2], config->block[0],
             config->block[1], config->block[2], cluster, cooperative, config->shared, bytes[0], bytes[1], bytes[2],
             bytes[3]);
    return give(config->stream, &work);
}
#endif

int cuStreamCreate(Stream** stream, unsigned flags) {
    IN_CONTEXT();
    if (flags != 1) return INVALID_VALUE;  // non-blocking is what is wanted here
    *stream = calloc(1, sizeof **stream);
    (*stream)->context = current;
    return 0;
}
int cuStreamDestroy_v2(Stream* stream) {
    ON_STREAM(stream);
    free(stream);
    say("destroy stream");
    return 0;
}
int cuStreamSynchronize(Stream* stream) {
    ON_STREAM(stream);
    return capturing(stream) ? CAPTURE_UNSUPPORTED : 0;
}
int cuStreamBeginCapture_v2(Stream* stream, int mode) {
    ON_STREAM(stream);
    if ((size_t)stream <= 2 || stream->capture || mode != 1) return INVALID_VALUE;  // thread-local
    stream->capture = calloc(1, sizeof(Graph));
    return 0;
}
int cuStreamEndCapture(Stream* stream, Graph** graph) {
    ON_STREAM(stream);
    *graph = stream->capture;
    stream->capture = NULL;
    return *graph ? 0 : INVALID_VALUE;
}
int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long flags) {
    IN_CONTEXT();
    if (flags) return INVALID_VALUE;
    size_t bytes = (size_t)graph->count * sizeof *graph->work;
    *executable = malloc(sizeof **executable);
    (*executable)->count = graph->count;
    (*executable)->work = memcpy(malloc(bytes + 1), graph->work, bytes);
    return 0;
}
int cuGraphDestroy(Graph* graph) {
    free(graph->work);
    free(graph);
    return 0;
}
int cuGraphExecDestroy(Graph* executable) {
    say("destroy graph");
    return cuGraphDestroy(executable);
}
int cuGraphLaunch(Graph* executable, Stream* stream) {
    ON_STREAM(stream);
    for (int i = 0; i < executable->count; ++i) do_work(&executable->work[i]);
    return 0;
}

int cuEventCreate(int** event, unsigned flags) {
    IN_CONTEXT();
    if (flags) return INVALID_VALUE;
    *event = calloc(1, sizeof **event);
    return 0;
}
int cuEventDestroy_v2(int* event) {
    free(event);
    return 0;
}
int cuEventRecord(int* event, Stream* stream) {
    ON_STREAM(stream);
    *event = 1;
    return 0;
}
int cuEventSynchronize(int* event) {
    IN_CONTEXT();
    return *event ? 0 : INVALID_HANDLE;
}
int cuEventElapsedTime(float* milliseconds, int* start, int* stop) {
    if (!*start || !*stop) return INVALID_HANDLE;
    *milliseconds = 0.25f;
    return 0;
}
