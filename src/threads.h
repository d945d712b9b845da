/* Teams of threads for one native call. The threads fall asleep a tenth of a millisecond after a call; a child after
 * fork makes its own. */
#ifndef RNNCORE_THREADS_H
#define RNNCORE_THREADS_H

enum { MOST_THREADS = 64 };

/* -> size of the team that the caller now has: 1..wanted; 1 where another call has the threads at this moment. */
int take_team(int wanted);

/* body(context, member) for member = 0 .. size-1 at the same time, 0 in the calling thread; returns when all are done.
 */
void run_team(int size, void (*body)(void *context, int member), void *context);

void leave_team(int size);

/* A meeting point of `size` members; starts as zeros. */
typedef struct barrier {
    _Alignas(64) int arrived;
    _Alignas(64) int generation;
} barrier;

/* Returns when all members have come; what any of them wrote before, all see after. */
void wait_for_all(barrier *b, int size);

#endif
