/* Jobs for several threads.
 *
 * A job is a sequence of phases, a phase a number of pieces. The caller works on its job, and helpers join it: each
 * thread claims a piece that nobody has begun, and whoever finishes the last piece of a phase prepares the next phase. So
 * nobody waits for a thread that has not begun, only for one that is in the middle of a piece. A helper that keeps the
 * caller waiting there has lost its core to somebody else: it rests for a while, and others take its pieces.
 *
 * Which thread runs a piece must not change its result. */
#ifndef RNNCORE_THREADS_H
#define RNNCORE_THREADS_H

#include <stdint.h>

enum { MAX_THREADS = 64, MAX_PIECES = 2 * MAX_THREADS };

typedef struct job {
    /* Prepare the next phase: the number of its pieces, at most MAX_PIECES, or 0 if the job is done. Runs in one thread
     * at a time, which sees what all pieces have written. */
    int (*next_phase)(void *context);
    void (*run_piece)(void *context, int piece);
    void *context;
} job;

typedef struct team team;

/* Take a team of up to `wanted` > 1 threads, the caller included, and return its size. All calls together get as many
 * threads as there are cores: a call that finds none to spare has size 1, and *t is NULL. */
int take_team(int wanted, team **t);

/* Run a job, in the calling thread alone if t is NULL, as a computation (below). Return whether it was interrupted:
 * then results are undefined, and no phase begins any more. */
int run_job(team *t, const job *j);

/* To be called after each take_team. */
void leave_team(team *t, int size);

/* How many threads can run at the same time. */
void set_core_count(int count);

/* ---- interrupts ----------------------------------------------------------------------------------------------------
 *
 * What takes long asks is_interrupted every ten milliseconds or so, and returns at once if it is: its results are thrown
 * away. The thread that began the computation looks for an interrupt ten times a second. */

typedef struct computation {
    struct computation *outer;
    int interrupted;
    int64_t next_look; /* nanoseconds */
    unsigned long long saved;
} computation;

/* From here to end_computation subnormal numbers count as zero in the calling thread, and is_interrupted looks. */
void begin_computation(computation *c);

/* Return whether it was interrupted. */
int end_computation(computation *c);

/* Whether the computation of the calling thread, or the job that it helps with, is interrupted; 0 if there is none. */
int is_interrupted(void);

/* Let `is_raised` say whether to interrupt the computation of the thread that calls it. */
void set_interrupts(int (*is_raised)(void));

#endif
