// Makes an application's own mistake on one GPU: a store to address 0. The driver answers with XID 31 (MMU fault) for
// this process and nothing else; the vendor's advice is to restart the application.
//
// Through the driver's library alone, so that it needs a C compiler and no CUDA toolkit:
//   cc -o provoke provoke.c -ldl && ./provoke GPU-<uuid>
// Exit: 0 the mistake was made and the driver said so; 2 there is no libcuda.so.1; 1 anything else.

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { ILLEGAL_ADDRESS = 700, DEVICES_MAX = 64 };

static const char PTX[] =
    ".version 6.0\n"
    ".target sm_50\n"
    ".address_size 64\n"
    ".visible .entry mistake()\n"
    "{\n"
    "  .reg .u64 %at;\n"
    "  .reg .u32 %value;\n"
    "  mov.u64 %at, 0;\n"
    "  mov.u32 %value, 1;\n"
    "  st.global.u32 [%at], %value;\n"
    "  ret;\n"
    "}\n";

typedef struct { unsigned char bytes[16]; } uuid_t;
typedef int (*init_t)(unsigned);
typedef int (*count_t)(int *);
typedef int (*get_t)(int *, int);
typedef int (*uuid_of_t)(uuid_t *, int);
typedef int (*retain_t)(void **, int);
typedef int (*current_t)(void *);
typedef int (*load_t)(void **, const void *);
typedef int (*function_t)(void **, void *, const char *);
typedef int (*launch_t)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                        void **);
typedef int (*synchronize_t)(void);

static void *library;

static void *symbol(const char *name) {
  void *found = dlsym(library, name);
  if (!found) fprintf(stderr, "libcuda.so.1 has no %s\n", name);
  return found;
}

// Calls it, and leaves with 1 where it does not exist or fails.
#define CALL(type, name, ...)                                        \
  do {                                                               \
    type call = (type)symbol(name);                                  \
    if (!call) return 1;                                             \
    int code = call(__VA_ARGS__);                                    \
    if (code) {                                                      \
      fprintf(stderr, "%s: CUDA error %d\n", name, code);            \
      return 1;                                                      \
    }                                                                \
  } while (0)

static void text(const uuid_t *uuid, char *out) {
  out += sprintf(out, "GPU-");
  for (int at = 0; at < 16; at++) {
    if (at == 4 || at == 6 || at == 8 || at == 10) *out++ = '-';
    out += sprintf(out, "%02x", uuid->bytes[at]);
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: provoke GPU-<uuid>\n");
    return 1;
  }
  library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  CALL(init_t, "cuInit", 0);
  int count = 0, device = -1;
  CALL(count_t, "cuDeviceGetCount", &count);
  for (int at = 0; at < count && at < DEVICES_MAX; at++) {
    int candidate;
    uuid_t uuid;
    char name[64];
    CALL(get_t, "cuDeviceGet", &candidate, at);
    CALL(uuid_of_t, "cuDeviceGetUuid", &uuid, candidate);
    text(&uuid, name);
    if (!strcmp(name, argv[1])) device = candidate;
  }
  if (device < 0) {
    fprintf(stderr, "CUDA shows no %s\n", argv[1]);
    return 1;
  }
  void *context, *module, *function;
  CALL(retain_t, "cuDevicePrimaryCtxRetain", &context, device);
  CALL(current_t, "cuCtxSetCurrent", context);
  CALL(load_t, "cuModuleLoadData", &module, PTX);
  CALL(function_t, "cuModuleGetFunction", &function, module, "mistake");
  CALL(launch_t, "cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
  synchronize_t synchronize = (synchronize_t)symbol("cuCtxSynchronize");
  if (!synchronize) return 1;
  int code = synchronize();
  if (code != ILLEGAL_ADDRESS) {
    fprintf(stderr, "the mistake came to CUDA error %d, not to %d\n", code, ILLEGAL_ADDRESS);
    return 1;
  }
  return 0;
}
