#include "threads.h"

#include "kernels.h"
#include "system.h"

enum { MAX_TEAMS = 16 };

enum { SPINS_PER_LOOK = 16 }; /* at the clock */

/* A wait in a healthy team is shorter, and so are most pauses between two calls of a loop; waking a sleeping thread
 * takes as long. */
static const int64_t SPIN_TIME = 100000;

/* A caller keeps an account with its helpers: the time that it works beside them is earned, the time that it waits for
 * them, beyond SPIN_TIME, is lost, and counts PRICE times. Of a job in whose phases mostly nobody helped, all time is
 * lost: it was cut into pieces in vain. When the balance falls below zero, the helpers in question rest, and a new
 * account begins. A core that is taken away for good costs at most MOST_CREDIT / PRICE at first. */
static const int64_t FIRST_CREDIT = 10000000, MOST_CREDIT = 40000000;
enum { PRICE = 2 };

/* A rest is twice as long as the one before, unless the helper has worked for HEALTHY times that: what its absences cost
 * stays small, and a core that is free again is found. */
static const int64_t SHORTEST_REST = 10000000, LONGEST_REST = 160000000;
enum { HEALTHY = 8 };

/* Of the caller, in milliseconds, before it looks for an interrupt. */
enum { LONGEST_SLEEP = 50 };

static const int64_t TIME_BETWEEN_LOOKS = 100000000;

typedef struct piece {
    _Alignas(64) uint64_t claimed; /* number of the phase in which it was claimed last << 8 | seat of the thread */
    uint64_t finished;             /* number of the phase in which it was finished last */
} piece;

/* A thread of a team; seat 0 is the caller's. Times are in nanoseconds. */
typedef struct seat {
    team *team;
    int number;
    condition woken;
    thread thread;
    uint64_t begun; /* the phase of the team when the thread started */
    int64_t rest, rests_until;
} seat;

struct team {
    _Alignas(64) uint64_t phase;       /* number << 8 | pieces; the number grows for ever, from job to job */
    _Alignas(64) int unfinished;       /* pieces of the phase */
    _Alignas(64) uint64_t seats_in;    /* bits of the seats that take pieces */
    uint64_t seats_asleep;             /* bits of the seats that must be woken */
    mutex lock;                        /* of sleeping and waking */
    job job;
    computation *computation; /* of the caller */
    int size;
    uint64_t seats_of_job;         /* those that were in at its start */
    int64_t begun, waited, credit; /* the account: when it began, late waits since, the balance brought forward */
    int phases, phases_alone;      /* in that time; those in which nobody helped */
    int64_t returns;               /* when the first rest of this job ends; 0 if nobody rests */
    int taken, helpers;                /* guarded by `lock_of_teams`; helpers have been started */
    int core;                          /* that the helpers are kept off */
    seat seats[MAX_THREADS];
    piece pieces[MAX_PIECES];
};

static team teams[MAX_TEAMS];
static mutex lock_of_teams;
static int cores = 1, engaged; /* guarded by it; threads of all calls that took a team, or wanted one */

static void begin_teams(void) {
    begin_mutex(&lock_of_teams);
    engaged = 0;
    for (int i = 0; i < MAX_TEAMS; i++) {
        team *t = &teams[i];
        begin_mutex(&t->lock);
        t->taken = t->helpers = 0;
        t->seats_in = t->seats_asleep = 0;
        t->credit = FIRST_CREDIT;
        t->core = -1;
        for (int k = 0; k < MAX_THREADS; k++) {
            begin_condition(&t->seats[k].woken);
            t->seats[k].team = t;
            t->seats[k].number = k;
        }
    }
}

#if !defined(_WIN32)
static void before_fork(void) { lock_mutex(&lock_of_teams); }

static void after_fork_in_parent(void) { unlock_mutex(&lock_of_teams); }
#endif

__attribute__((constructor)) static void begin(void) {
    begin_teams();
#if !defined(_WIN32)
    /* In the child there are no helpers, nor the calls that had them. */
    pthread_atfork(before_fork, after_fork_in_parent, begin_teams);
#endif
}

void set_core_count(int count) {
    lock_mutex(&lock_of_teams);
    cores = count;
    unlock_mutex(&lock_of_teams);
}

/* ---- interrupts ---------------------------------------------------------------------------------------------------- */

static int (*interrupts)(void); /* set once, before there is a computation */

static _Thread_local computation *own;          /* of the calling thread, or */
static _Thread_local const computation *helped; /* of the caller whose piece it runs */

void set_interrupts(int (*is_raised)(void)) { interrupts = is_raised; }

void begin_computation(computation *c) {
    c->outer = own;
    c->interrupted = 0;
    c->next_look = nanoseconds() + TIME_BETWEEN_LOOKS;
    c->saved = begin_flush_subnormals();
    own = c;
}

int end_computation(computation *c) {
    own = c->outer;
    end_flush_subnormals(c->saved);
    return c->interrupted;
}

/* A handler of a signal may run, any code that is. */
static void look(computation *c) {
    end_flush_subnormals(c->saved);
    int raised = interrupts && interrupts();
    begin_flush_subnormals();
    if (raised) __atomic_store_n(&c->interrupted, 1, __ATOMIC_RELAXED);
    c->next_look = nanoseconds() + TIME_BETWEEN_LOOKS;
}

int is_interrupted(void) {
    if (own && !own->interrupted && nanoseconds() >= own->next_look) look(own);
    const computation *c = own ? own : helped;
    return c && __atomic_load_n(&c->interrupted, __ATOMIC_RELAXED);
}

static int next_phase(const job *j) { return is_interrupted() ? 0 : j->next_phase(j->context); }

/* ---- phases and pieces --------------------------------------------------------------------------------------------- */

static uint64_t number_of(uint64_t phase) { return phase >> 8; }

static int pieces_of(uint64_t phase) { return (int)(phase & 255); }

static uint64_t bit_of(const seat *s) { return (uint64_t)1 << s->number; }

/* Whether a thread may run the piece. All pieces of a phase that is over have been claimed: a thread that comes late
 * finds none, and touches nothing of the job. */
static int claim(piece *p, uint64_t phase, int seat) {
    uint64_t before = __atomic_load_n(&p->claimed, __ATOMIC_RELAXED);
    return number_of(before) < number_of(phase) &&
           __atomic_compare_exchange_n(&p->claimed, &before, number_of(phase) << 8 | (uint64_t)seat, 0, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static void begin_phase(team *t, int count) {
    uint64_t phase = __atomic_load_n(&t->phase, __ATOMIC_RELAXED);
    __atomic_store_n(&t->unfinished, count, __ATOMIC_RELAXED);
    __atomic_store_n(&t->phase, (number_of(phase) + 1) << 8 | (uint64_t)count, __ATOMIC_SEQ_CST);
    uint64_t wanted = __atomic_load_n(&t->seats_in, __ATOMIC_RELAXED) | 1;
    uint64_t asleep = __atomic_load_n(&t->seats_asleep, __ATOMIC_SEQ_CST) & wanted;
    if (!asleep) return;
    lock_mutex(&t->lock);
    for (int k = 0; asleep >> k; k++)
        if (asleep >> k & 1) wake_all(&t->seats[k].woken);
    unlock_mutex(&t->lock);
}

/* Run what nobody has begun, and return how many pieces that were. */
static int run_pieces(seat *s, uint64_t phase) {
    team *t = s->team;
    int count = pieces_of(phase), size = __atomic_load_n(&t->size, __ATOMIC_RELAXED), own = 0;
    /* Its own pieces first: the weights that they read are in the cache of its core. */
    int first = size ? s->number * count / size : 0;
    for (int i = 0; i < count; i++) {
        int k = (first + i) % count;
        if (!claim(&t->pieces[k], phase, s->number)) continue;
        own++;
        if (s->number > 0) helped = t->computation;
        t->job.run_piece(t->job.context, k);
        __atomic_store_n(&t->pieces[k].finished, number_of(phase), __ATOMIC_RELAXED);
        if (__atomic_sub_fetch(&t->unfinished, 1, __ATOMIC_ACQ_REL) == 0)
            begin_phase(t, next_phase(&t->job));
    }
    return own;
}

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

static int is_over(const seat *s, uint64_t phase) {
    return __atomic_load_n(&s->team->phase, __ATOMIC_SEQ_CST) != phase;
}

static int is_in(const seat *s) {
    return s->number == 0 || (__atomic_load_n(&s->team->seats_in, __ATOMIC_SEQ_CST) & bit_of(s));
}

/* Wait by spinning until the phase is over, for a limited time. */
static void spin(const seat *s, uint64_t phase, int64_t limit) {
    int64_t end = 0;
    for (int spins = 1; is_in(s) && !is_over(s, phase); spins++) {
        PAUSE();
        if (spins % SPINS_PER_LOOK) continue;
        int64_t now = nanoseconds();
        if (!end) end = now + limit;
        if (now >= end) return;
    }
}

/* Wait asleep until the phase is over and the seat is in, or for some time. */
static void sleep_until_over(seat *s, uint64_t phase, int milliseconds) {
    team *t = s->team;
    lock_mutex(&t->lock);
    __atomic_or_fetch(&t->seats_asleep, bit_of(s), __ATOMIC_SEQ_CST);
    while (!is_over(s, phase) || !is_in(s)) {
        wait_for(&s->woken, &t->lock, milliseconds);
        if (milliseconds >= 0) break;
    }
    __atomic_and_fetch(&t->seats_asleep, ~bit_of(s), __ATOMIC_SEQ_CST);
    unlock_mutex(&t->lock);
}

static thread_result THREAD_CALL help(void *argument) {
    seat *s = argument;
    begin_flush_subnormals();
    for (uint64_t phase = s->begun;;) {
        spin(s, phase, SPIN_TIME);
        if (!is_over(s, phase) || !is_in(s)) sleep_until_over(s, phase, -1);
        phase = __atomic_load_n(&s->team->phase, __ATOMIC_ACQUIRE);
        run_pieces(s, phase);
    }
    return 0;
}

/* ---- late helpers -------------------------------------------------------------------------------------------------- */

static void begin_rest(seat *s, int64_t now) {
    team *t = s->team;
    __atomic_and_fetch(&t->seats_in, ~bit_of(s), __ATOMIC_SEQ_CST);
    if (now - s->rests_until > HEALTHY * s->rest)
        s->rest = SHORTEST_REST;
    else if (s->rest < LONGEST_REST)
        s->rest *= 2;
    s->rests_until = now + s->rest;
    if (!t->returns || s->rests_until < t->returns) t->returns = s->rests_until;
}

/* Let the helpers rest that are in the middle of a piece. */
static void rest_late_helpers(team *t, uint64_t phase, int64_t now) {
    for (int k = 0; k < pieces_of(phase); k++) {
        uint64_t claimed = __atomic_load_n(&t->pieces[k].claimed, __ATOMIC_RELAXED);
        seat *s = &t->seats[claimed & 255];
        if (s->number > 0 && number_of(claimed) == number_of(phase) &&
            __atomic_load_n(&t->pieces[k].finished, __ATOMIC_RELAXED) != number_of(phase))
            begin_rest(s, now);
    }
}

static void begin_account(team *t, int64_t credit) {
    t->begun = nanoseconds();
    t->waited = t->returns = 0;
    t->phases = t->phases_alone = 0;
    t->credit = credit;
}

/* Seat the helpers of the job again whose rest is over. */
static void end_rests(team *t) {
    int64_t now = nanoseconds();
    if (now < t->returns) return;
    for (int k = 1; k < MAX_THREADS; k++)
        if (t->seats_of_job >> k & 1 && t->seats[k].rests_until <= now)
            __atomic_or_fetch(&t->seats_in, bit_of(&t->seats[k]), __ATOMIC_SEQ_CST);
    begin_account(t, FIRST_CREDIT);
}

/* The balance after `waits` nanoseconds of a wait that has just begun, or of none. */
static int64_t balance(const team *t, int64_t now, int64_t waits) {
    int64_t worked = now - waits - t->begun - t->waited, credit = t->credit + worked;
    return (credit < MOST_CREDIT ? credit : MOST_CREDIT) - PRICE * (t->waited + waits);
}

/* The caller has run its pieces. */
static void wait_for_helpers(team *t, uint64_t phase) {
    seat *caller = &t->seats[0];
    spin(caller, phase, SPIN_TIME);
    if (is_over(caller, phase)) return;
    int64_t begun = nanoseconds(), now = begun;
    for (int resting = 0; !is_over(caller, phase); now = nanoseconds()) {
        int64_t left = balance(t, now, now - begun);
        if (left < 0 && !resting) {
            rest_late_helpers(t, phase, now);
            resting = 1;
        }
        int milliseconds = (int)(left / PRICE / 1000000) + 1;
        sleep_until_over(caller, phase, resting || milliseconds > LONGEST_SLEEP ? LONGEST_SLEEP : milliseconds);
        is_interrupted();
    }
    t->waited += now - begun;
}

/* The job is done. */
static void end_account(team *t) {
    int64_t now = nanoseconds();
    if (2 * t->phases_alone <= t->phases) {
        t->credit = balance(t, now, 0);
    } else if ((t->credit -= now - t->begun) < 0) {
        for (int k = 1; k < MAX_THREADS; k++)
            if (t->seats_of_job >> k & 1) begin_rest(&t->seats[k], now);
    }
    if (t->returns) t->credit = FIRST_CREDIT;
}

/* ---- teams --------------------------------------------------------------------------------------------------------- */

/* Start the helpers that are missing of a team of `wanted`, and seat those that do not rest; return how many there are
 * with the caller. */
static int seat_threads(team *t, int wanted) {
    int64_t now = nanoseconds();
    int size = 1;
    uint64_t seats_in = 0;
    for (int k = 1; k < wanted; k++) {
        seat *s = &t->seats[k];
        if (k > t->helpers) {
            s->begun = __atomic_load_n(&t->phase, __ATOMIC_RELAXED);
            s->rest = s->rests_until = 0;
            if (!start_thread(help, s, &s->thread)) break;
            t->helpers++;
            t->core = -1;
        }
        if (now < s->rests_until) continue;
        seats_in |= bit_of(s);
        size++;
    }
    __atomic_store_n(&t->size, size, __ATOMIC_RELAXED);
    t->seats_of_job = seats_in;
    __atomic_store_n(&t->seats_in, seats_in, __ATOMIC_SEQ_CST);
    return size;
}

int take_team(int wanted, team **t) {
    *t = NULL;
    lock_mutex(&lock_of_teams);
    int size = cores - engaged, i = 0;
    if (size > wanted) size = wanted;
    if (size > MAX_THREADS) size = MAX_THREADS;
    while (i < MAX_TEAMS && teams[i].taken) i++;
    if (size > 1 && i < MAX_TEAMS) {
        size = seat_threads(&teams[i], size);
        if (size > 1) {
            teams[i].taken = 1;
            *t = &teams[i];
        }
    }
    if (!*t) size = 1;
    engaged += size;
    unlock_mutex(&lock_of_teams);
    return size;
}

static void run_alone(const job *j) {
    for (int count; (count = next_phase(j));)
        for (int piece = 0; piece < count; piece++) j->run_piece(j->context, piece);
}

static void run_together(team *t, const job *j, computation *c) {
    int core = current_core();
    for (int k = 1; k <= t->helpers && core != t->core; k++) keep_off(t->seats[k].thread, core);
    t->core = core;
    t->job = *j;
    t->computation = c;
    begin_account(t, t->credit);
    int count = next_phase(j);
    if (!count) return;
    begin_phase(t, count);
    for (uint64_t phase; pieces_of(phase = __atomic_load_n(&t->phase, __ATOMIC_ACQUIRE));) {
        if (t->returns) end_rests(t);
        t->phases++;
        t->phases_alone += run_pieces(&t->seats[0], phase) == pieces_of(phase);
        wait_for_helpers(t, phase);
    }
    end_account(t);
}

int run_job(team *t, const job *j) {
    computation c;
    begin_computation(&c);
    if (t)
        run_together(t, j, &c);
    else
        run_alone(j);
    return end_computation(&c);
}

void leave_team(team *t, int size) {
    lock_mutex(&lock_of_teams);
    engaged -= size;
    if (t) t->taken = 0;
    unlock_mutex(&lock_of_teams);
}
