// Faults of a disk, for a program that runs with this in LD_PRELOAD: of the calls that change something below FAULT_FOLDER, the one of number
// FAULT_AT (from 1), and with FAULT_STAYS all after it, fail with the error FAULT_ERRNO. At the end their number is in the file FAULT_COUNT.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;
static atomic_char watched[4096];

static const char *folder(void) {
    const char *name = getenv("FAULT_FOLDER");
    return name ? name : "\001";
}

static int below(const char *path) { return path && strncmp(path, folder(), strlen(folder())) == 0; }

static int of_file(int fd) { return fd >= 0 && fd < 4096 && watched[fd]; }

// Counts a call; whether it fails.
static int fails(void) {
    long number = atomic_fetch_add(&calls, 1) + 1;
    const char *at = getenv("FAULT_AT"), *error = getenv("FAULT_ERRNO");
    long first = at ? atol(at) : 0;
    if (first == 0 || number < first || (number > first && !getenv("FAULT_STAYS"))) return 0;
    errno = error ? atoi(error) : EIO;
    return 1;
}

__attribute__((destructor)) static void say(void) {
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", atomic_load(&calls));
    fclose(file);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(const char *path, int flags, int (*by)(const char *, int, ...), mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY && below(path);
    if (writes && fails()) return -1;
    int fd = by(path, flags, mode);
    if (fd >= 0 && fd < 4096) watched[fd] = writes;
    return fd;
}

#define OPEN(name)                                   \
    int name(const char *path, int flags, ...) {     \
        va_list list;                                \
        va_start(list, flags);                       \
        mode_t mode = va_arg(list, mode_t);          \
        va_end(list);                                \
        return opened(path, flags, NEXT(name), mode);\
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t count) {
    if (of_file(fd) && fails()) return -1;
    return NEXT(write)(fd, bytes, count);
}

int fsync(int fd) { return of_file(fd) && fails() ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return of_file(fd) && fails() ? -1 : NEXT(fdatasync)(fd); }
int fchmod(int fd, mode_t mode) { return of_file(fd) && fails() ? -1 : NEXT(fchmod)(fd, mode); }
int ftruncate64(int fd, off64_t length) { return of_file(fd) && fails() ? -1 : NEXT(ftruncate64)(fd, length); }
int rename(const char *from, const char *to) { return below(to) && fails() ? -1 : NEXT(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return below(path) && fails() ? -1 : NEXT(mkdir)(path, mode); }

int close(int fd) {
    if (fd >= 0 && fd < 4096) watched[fd] = 0;
    return NEXT(close)(fd);
}
