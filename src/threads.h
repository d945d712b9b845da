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

enum { MAX_THREADS = 64, MAX_PIECES = 2 * MAX_THREADS };

typedef struct job {
    /* Prepare the next phase: the number of its pieces, at most MAX_PIECES, or 0 if the job is done. Runs in one thread
     * at a time, which sees what all pieces have written. */
    int (*next_phase)(void *context);
    /* Run a piece; `calls` in the thread that called run_job. */
    void (*run_piece)(void *context, int piece, int calls);
    /* Called in that thread now and then, at least every 50 ms, while it waits; for a job without a team, never.
     * NULL: nothing is called. */
    void (*wait)(void *context);
    void *context;
} job;

typedef struct team team;

/* Take a team of up to `wanted` > 1 threads, the caller included, and return its size. All calls together get as many
 * threads as there are cores: a call that finds none to spare has size 1, and *t is NULL. */
int take_team(int wanted, team **t);

/* Run a job, in the calling thread alone if t is NULL. Subnormal numbers count as zero meanwhile. */
void run_job(team *t, const job *j);

/* To be called after each take_team. */
void leave_team(team *t, int size);

/* How many threads can run at the same time. */
void set_core_count(int count);

#endif
