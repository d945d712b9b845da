/* A pool of memory blocks: a freed block serves the next call that needs about as much. Fresh memory costs a page fault
 * every 4 KB, a fifth of a training step at T=64 N=32 H=256. The pool holds at most 256 MB, and
 * gives them back when memory runs out. Its functions must not run at the same time: callers hold the GIL. */
#ifndef RNNCORE_MEMORY_H
#define RNNCORE_MEMORY_H

#include <stddef.h>

typedef struct block {
    void *start; /* aligned to 64 bytes */
    size_t size; /* in bytes */
} block;

/* Smaller blocks are not pooled: malloc itself recycles them. */
enum { SMALLEST_POOLED = 1 << 16 };

/* A block of at least `size` bytes; its start is NULL if there is no memory. */
block take_block(size_t size);

/* Give a block back; one whose start is NULL is ignored. */
void give_block(block b);

#endif
