/* Allocations that fail on purpose, for faults.py: preloaded, it counts the allocations of one shared library and lets
 * those from the k-th on, or that one alone, fail. GNU C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

enum { LARGEST_LIVE = 4096 };

static uintptr_t first, end;       /* the code that is watched */
static size_t smallest;            /* bytes of an allocation that counts */
static long fails_from, fails_to;  /* of the allocations counted from 1; none while 0 */
static _Atomic long counted, failed;
static int threads_only;           /* pthread_create counts, and nothing else */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *live[LARGEST_LIVE];   /* allocations of the library that it has not freed */
static _Atomic int live_count;

void faults_watch(uintptr_t from, uintptr_t to, size_t least) { first = from, end = to, smallest = least; }

void faults_begin(long from, long to, int of_threads) {
    counted = failed = 0;
    threads_only = of_threads;
    fails_from = from, fails_to = to;
}

/* Let everything succeed again; return how many failed. */
long faults_end(void) {
    fails_from = 0;
    return failed;
}

long faults_counted(void) { return counted; }

int faults_live(void) { return live_count; }

static int is_watched(const void *caller, size_t size) {
    return first <= (uintptr_t)caller && (uintptr_t)caller < end && size >= smallest;
}

static int fails(int is_thread) {
    if (!fails_from || is_thread != threads_only) return 0;
    long k = ++counted;
    if (k < fails_from || k > fails_to) return 0;
    failed++;
    errno = is_thread ? EAGAIN : ENOMEM;
    return 1;
}

static void *keep(void *memory) {
    if (!memory) return memory;
    pthread_mutex_lock(&lock);
    if (live_count < LARGEST_LIVE) live[live_count++] = memory;
    pthread_mutex_unlock(&lock);
    return memory;
}

static void drop(const void *memory) {
    if (!memory || !live_count) return;
    pthread_mutex_lock(&lock);
    for (int i = live_count - 1; i >= 0; i--)
        if (live[i] == memory) {
            live[i] = live[--live_count];
            break;
        }
    pthread_mutex_unlock(&lock);
}

#define ALLOCATE(SIZE, CALL)                                   \
    if (!is_watched(__builtin_return_address(0), SIZE)) return CALL; \
    return fails(0) ? NULL : keep(CALL)

void *malloc(size_t size) { ALLOCATE(size, __libc_malloc(size)); }

void *calloc(size_t count, size_t size) { ALLOCATE(count * size, __libc_calloc(count, size)); }

void *aligned_alloc(size_t alignment, size_t size) { ALLOCATE(size, __libc_memalign(alignment, size)); }

void *memalign(size_t alignment, size_t size) { ALLOCATE(size, __libc_memalign(alignment, size)); }

void *realloc(void *memory, size_t size) {
    int watched = is_watched(__builtin_return_address(0), size);
    if (watched && fails(0)) return NULL;
    drop(memory);
    memory = __libc_realloc(memory, size);
    return watched ? keep(memory) : memory;
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    int watched = is_watched(__builtin_return_address(0), size);
    if (watched && fails(0)) return ENOMEM;
    void *found = __libc_memalign(alignment, size);
    if (!found) return ENOMEM;
    *memory = watched ? keep(found) : found;
    return 0;
}

void free(void *memory) {
    drop(memory);
    __libc_free(memory);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (is_watched(__builtin_return_address(0), SIZE_MAX) && fails(1)) return EAGAIN;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, body, argument);
}

/* ---- crashes ------------------------------------------------------------------------------------------------------- */

static int report;

/* Write the path of the library that has crashed. */
static void tell_library(int number) {
    void *frames[8];
    Dl_info own, found;
    dladdr((void *)tell_library, &own);
    int count = backtrace(frames, 8);
    for (int i = 0; i < count; i++)
        if (dladdr(frames[i], &found) && strcmp(found.dli_fname, own.dli_fname) && !strstr(found.dli_fname, "libc.so")) {
            if (write(report, found.dli_fname, strlen(found.dli_fname)) < 0) break;
            break;
        }
    signal(number, SIG_DFL);
    raise(number);
}

/* Tell in this file which library has crashed. */
void faults_report_crash(int file) {
    void *frames[1];
    backtrace(frames, 1); /* the first call allocates */
    report = file;
    signal(SIGSEGV, tell_library);
    signal(SIGABRT, tell_library);
    signal(SIGFPE, tell_library);
}
