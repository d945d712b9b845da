/* What the operating system has: locks, threads, the time, aligned memory. POSIX and Windows. */
#ifndef RNNCORE_SYSTEM_H
#define RNNCORE_SYSTEM_H

#include <stdint.h>
#include <stdlib.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <malloc.h>
#include <windows.h>

typedef SRWLOCK mutex;
typedef CONDITION_VARIABLE condition;
typedef int thread;
typedef DWORD thread_result;
#define THREAD_CALL WINAPI

static inline void begin_mutex(mutex *m) { InitializeSRWLock(m); }
static inline void lock_mutex(mutex *m) { AcquireSRWLockExclusive(m); }
static inline void unlock_mutex(mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void begin_condition(condition *c) { InitializeConditionVariable(c); }
static inline void wake_all(condition *c) { WakeAllConditionVariable(c); }
static inline void wait_for(condition *c, mutex *m, int milliseconds) {
    SleepConditionVariableSRW(c, m, milliseconds < 0 ? INFINITE : (DWORD)milliseconds, 0);
}

static inline int start_thread(thread_result(THREAD_CALL *body)(void *), void *argument, thread *started) {
    HANDLE handle = CreateThread(NULL, 0, body, argument, 0, NULL);
    if (!handle) return 0;
    CloseHandle(handle);
    *started = 0;
    return 1;
}

static inline int64_t nanoseconds(void) {
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    int64_t seconds = count.QuadPart / frequency.QuadPart, rest = count.QuadPart % frequency.QuadPart;
    return seconds * 1000000000 + rest * 1000000000 / frequency.QuadPart;
}

static inline void *allocate_aligned(size_t alignment, size_t size) { return _aligned_malloc(size, alignment); }
static inline void free_aligned(void *memory) { _aligned_free(memory); }
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t mutex;
typedef pthread_cond_t condition;
typedef pthread_t thread;
typedef void *thread_result;
#define THREAD_CALL

static inline void begin_mutex(mutex *m) { pthread_mutex_init(m, NULL); }
static inline void lock_mutex(mutex *m) { pthread_mutex_lock(m); }
static inline void unlock_mutex(mutex *m) { pthread_mutex_unlock(m); }
static inline void begin_condition(condition *c) { pthread_cond_init(c, NULL); }
static inline void wake_all(condition *c) { pthread_cond_broadcast(c); }

/* Wait until the condition is woken, or for some time unless that is negative; may return early. */
static inline void wait_for(condition *c, mutex *m, int milliseconds) {
    if (milliseconds < 0) {
        pthread_cond_wait(c, m);
        return;
    }
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += milliseconds / 1000;
    end.tv_nsec += milliseconds % 1000 * 1000000L;
    if (end.tv_nsec >= 1000000000L) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000L;
    }
    pthread_cond_timedwait(c, m, &end);
}

/* Start a thread that gets no signals: they are for the threads of the caller. Return 0 if there is none to be had. */
static inline int start_thread(thread_result(THREAD_CALL *body)(void *), void *argument, thread *started) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(started, NULL, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return 0;
    pthread_detach(*started);
    return 1;
}

/* Of a clock that never goes back. */
static inline int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* `size` is a multiple of `alignment`; NULL if there is no memory. */
static inline void *allocate_aligned(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }
static inline void free_aligned(void *memory) { free(memory); }
#endif

/* Linux wakes a thread on a core where it waits for the thread that woke it, although another core is free or has less
 * to do: helpers are kept off the core of their caller. */
#if defined(__linux__)
static inline int current_core(void) { return sched_getcpu(); }

/* Let a thread use the cores that the calling thread may use, without one of them if there are others. */
static inline void keep_off(thread t, int core) {
    cpu_set_t cores;
    if (core < 0 || sched_getaffinity(0, sizeof cores, &cores)) return;
    CPU_CLR(core, &cores);
    if (CPU_COUNT(&cores)) pthread_setaffinity_np(t, sizeof cores, &cores);
}
#else
static inline int current_core(void) { return -1; }
static inline void keep_off(thread t, int core) {
    (void)t;
    (void)core;
}
#endif

/* Tell the processor that a loop waits. */
#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

#endif
