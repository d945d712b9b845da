#include <string.h>

#include "memory.h"
#include "system.h"

enum { LARGEST_COUNT = 16 };
static const size_t LARGEST_TOTAL = (size_t)1 << 28;

/* Oldest first. */
static struct {
    block blocks[LARGEST_COUNT];
    int count;
    size_t size;
} pool;

static block remove_block(int index) {
    block removed = pool.blocks[index];
    pool.count--;
    pool.size -= removed.size;
    memmove(&pool.blocks[index], &pool.blocks[index + 1], (size_t)(pool.count - index) * sizeof(block));
    return removed;
}

static void empty_pool(void) {
    while (pool.count) free_aligned(remove_block(0).start);
}

block take_block(size_t size) {
    if (size > SIZE_MAX - 63) return (block){NULL, size};
    size = size < 64 ? 64 : (size + 63) / 64 * 64;
    int best = -1;
    if (size >= SMALLEST_POOLED)
        for (int i = 0; i < pool.count; i++) {
            size_t found = pool.blocks[i].size;
            if (size <= found && found <= 2 * size && (best < 0 || found < pool.blocks[best].size)) best = i;
        }
    if (best >= 0) return remove_block(best);
    void *start = allocate_aligned(64, size);
    if (!start && pool.count) {
        empty_pool();
        start = allocate_aligned(64, size);
    }
    return (block){start, size};
}

void give_block(block b) {
    if (!b.start) return;
    if (b.size < SMALLEST_POOLED || b.size > LARGEST_TOTAL) {
        free_aligned(b.start);
        return;
    }
    while (pool.count == LARGEST_COUNT || pool.size + b.size > LARGEST_TOTAL) free_aligned(remove_block(0).start);
    pool.blocks[pool.count++] = b;
    pool.size += b.size;
}
