/* Faults that only the C library can play: loaded in front of it (LD_PRELOAD) into the services of a test.
 * What is to go wrong stands in a file that both sides map; all zeros is nothing. See shim.py for the fields. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int64_t clock_s;       /* added to the wall clock */
    volatile int64_t short_writes;  /* 1: a large write writes half of what it was given, and sometimes says EINTR */
    volatile int64_t fsync_left;    /* so many calls of fsync or syncfs on staged files fail ... */
    volatile int64_t fsync_errno;   /* ... with this error, and the next says that all is well */
    volatile int64_t rename_left;   /* so many calls of renameat2 fail ... */
    volatile int64_t rename_errno;
    volatile int64_t kill_left;     /* at this call that changes a file system the process is killed */
    volatile int64_t calls;         /* so many of them there were */
    volatile int64_t refsyncs;      /* so often a file was synced again after its sync had failed */
    volatile int64_t failed[32];    /* hashes of the names and inodes whose sync failed */
    volatile int64_t failures;
};
static struct faults *faults;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) faults = at;
    close(fd);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int take(volatile int64_t *left) {
    int64_t now = *left;
    while (now > 0)
        if (__atomic_compare_exchange_n(left, &now, now - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return now;
    return 0;
}

static void change(void) {
    if (!faults) return;
    __atomic_add_fetch(&faults->calls, 1, __ATOMIC_SEQ_CST);
    if (take(&faults->kill_left) == 1) kill(getpid(), SIGKILL);
}

static int64_t staged(int fd) {  /* 0, or what stands for this file of a staging directory */
    char link[64], path[4096];
    struct stat found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || fstat(fd, &found)) return 0;
    path[length] = 0;
    if (!strstr(path, "/.dm/staging/") && !S_ISDIR(found.st_mode)) return 0;
    int64_t hash = 5381 + (int64_t)found.st_ino;
    for (ssize_t i = 0; i < length; i++) hash = hash * 33 + path[i];
    return hash ? hash : 1;
}

static int sync_fails(int fd, int is_whole) {
    if (!faults || (!faults->fsync_left && !faults->failures)) return 0;
    int64_t what = staged(fd);
    if (!what) return 0;
    struct stat found;
    if (!is_whole && !fstat(fd, &found) && S_ISDIR(found.st_mode)) return 0;
    for (int64_t i = 0; i < faults->failures && i < 32 && !is_whole; i++)
        if (faults->failed[i] == what) __atomic_add_fetch(&faults->refsyncs, 1, __ATOMIC_SEQ_CST);
    if (!take(&faults->fsync_left)) return 0;
    faults->failed[__atomic_fetch_add(&faults->failures, 1, __ATOMIC_SEQ_CST) % 32] = what;
    errno = (int)faults->fsync_errno;
    return 1;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    REAL(clock_gettime);
    int result = real(clock, at);
    if (clock == CLOCK_REALTIME && faults) at->tv_sec += faults->clock_s;
    return result;
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t offset) {
    static int turn;
    REAL(pwrite64);
    change();
    if (faults && faults->short_writes && count > 8192) {
        if (++turn % 3 == 0) { errno = EINTR; return -1; }
        return real(fd, from, count / 2, offset);
    }
    return real(fd, from, count, offset);
}
ssize_t pwrite(int fd, const void *from, size_t count, off_t offset) { return pwrite64(fd, from, count, offset); }

int fsync(int fd) { REAL(fsync); change(); return sync_fails(fd, 0) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); change(); return sync_fails(fd, 0) ? -1 : real(fd); }
int syncfs(int fd) { REAL(syncfs); change(); return sync_fails(fd, 1) ? -1 : real(fd); }

int renameat2(int old, const char *from, int new, const char *to, unsigned int flags) {
    REAL(renameat2);
    change();
    if (faults && take(&faults->rename_left)) { errno = (int)faults->rename_errno; return -1; }
    return real(old, from, new, to, flags);
}

int renameat(int old, const char *from, int new, const char *to) { REAL(renameat); change(); return real(old, from, new, to); }
int linkat(int old, const char *from, int new, const char *to, int flags) { REAL(linkat); change(); return real(old, from, new, to, flags); }
int symlinkat(const char *to, int at, const char *name) { REAL(symlinkat); change(); return real(to, at, name); }
int unlinkat(int at, const char *name, int flags) { REAL(unlinkat); change(); return real(at, name, flags); }
int mkdirat(int at, const char *name, mode_t mode) { REAL(mkdirat); change(); return real(at, name, mode); }
int fchmod(int fd, mode_t mode) { REAL(fchmod); change(); return real(fd, mode); }
int futimens(int fd, const struct timespec times[2]) { REAL(futimens); change(); return real(fd, times); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); change(); return real(fd, size); }
