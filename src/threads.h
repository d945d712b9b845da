/* Teams of threads, one team for a native call. Threads fall asleep a tenth of a millisecond after a call; a process that
 * was forked starts its own. */
#ifndef RNNCORE_THREADS_H
#define RNNCORE_THREADS_H

enum { MAX_THREADS = 64 };

/* Take a team of up to `wanted` threads, the caller included, and return its size: 1 while another call has the team. */
int take_team(int wanted);

/* Run body(context, member) for member = 0 .. size-1 at the same time, 0 in the calling thread, until all are done. */
void run_team(int size, void (*body)(void *context, int member), void *context);

void leave_team(int size);

/* A barrier for `size` members; starts as zeros. */
typedef struct barrier {
    _Alignas(64) int arrived;
    _Alignas(64) int generation;
} barrier;

/* Wait until all members have arrived; each then sees what the others wrote before. */
void wait_for_all(barrier *b, int size);

#endif
