#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "threads.h"

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

/* Spin for 50 to 100 us before sleeping: a wait in a healthy team is shorter, and so are most pauses between two calls
 * of a loop. Waking a sleeping thread takes as long. */
enum { SPINS = 4000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_posted = PTHREAD_COND_INITIALIZER, job_done = PTHREAD_COND_INITIALIZER;

/* Guarded by `lock`, except that `running` is counted down atomically. */
static struct {
    int taken, workers;
    unsigned long jobs; /* posted so far; what follows describes the last one */
    int size, running;
    void (*body)(void *, int);
    void *context;
    unsigned long jobs_before[MAX_THREADS]; /* for each worker, the jobs posted before it started */
} team;

static void *work(void *argument) {
    int member = (int)(size_t)argument;
    pthread_mutex_lock(&lock);
    for (unsigned long seen = team.jobs_before[member];;) {
        while (team.jobs == seen) pthread_cond_wait(&job_posted, &lock);
        seen = team.jobs;
        if (member >= team.size) continue;
        void (*body)(void *, int) = team.body;
        void *context = team.context;
        pthread_mutex_unlock(&lock);
        body(context, member);
        pthread_mutex_lock(&lock);
        if (__atomic_sub_fetch(&team.running, 1, __ATOMIC_RELEASE) == 0) pthread_cond_signal(&job_done);
        pthread_mutex_unlock(&lock);
        for (int spin = 0; spin < SPINS && __atomic_load_n(&team.jobs, __ATOMIC_RELAXED) == seen; spin++) PAUSE();
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

static int start_worker(void) {
    sigset_t all, before;
    pthread_t thread;
    team.jobs_before[team.workers + 1] = team.jobs;
    sigfillset(&all); /* leave signals to the caller's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, work, (void *)(size_t)(team.workers + 1));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return 0;
    pthread_detach(thread);
    team.workers++;
    return 1;
}

static void before_fork(void) { pthread_mutex_lock(&lock); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_in_child(void) {
    /* The workers do not exist here, nor does the call that had them. */
    team.taken = team.workers = 0;
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&job_posted, NULL);
    pthread_cond_init(&job_done, NULL);
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int take_team(int wanted) {
    if (wanted > MAX_THREADS) wanted = MAX_THREADS;
    if (wanted <= 1) return 1;
    pthread_mutex_lock(&lock);
    int size = 1;
    if (!team.taken) {
        while (team.workers < wanted - 1 && start_worker()) continue;
        size = wanted <= team.workers + 1 ? wanted : team.workers + 1;
        team.taken = size > 1;
    }
    pthread_mutex_unlock(&lock);
    return size;
}

void run_team(int size, void (*body)(void *, int), void *context) {
    if (size == 1) {
        body(context, 0);
        return;
    }
    pthread_mutex_lock(&lock);
    team.body = body;
    team.context = context;
    team.size = size;
    team.running = size - 1;
    __atomic_add_fetch(&team.jobs, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&job_posted);
    pthread_mutex_unlock(&lock);
    body(context, 0);
    for (int spin = 0; spin < SPINS && __atomic_load_n(&team.running, __ATOMIC_ACQUIRE); spin++) PAUSE();
    pthread_mutex_lock(&lock);
    while (__atomic_load_n(&team.running, __ATOMIC_ACQUIRE)) pthread_cond_wait(&job_done, &lock);
    pthread_mutex_unlock(&lock);
}

void leave_team(int size) {
    if (size == 1) return;
    pthread_mutex_lock(&lock);
    team.taken = 0;
    pthread_mutex_unlock(&lock);
}

void wait_for_all(barrier *b, int size) {
    if (size == 1) return;
    int generation = __atomic_load_n(&b->generation, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == size) {
        __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&b->generation, generation + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spin = 0; __atomic_load_n(&b->generation, __ATOMIC_ACQUIRE) == generation; spin++) {
        if (spin < SPINS)
            PAUSE();
        else
            sched_yield();
    }
}
