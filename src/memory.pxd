"""Cython's view of memory.h."""


cdef extern from "memory.h":
    enum:
        SMALLEST_POOLED

    ctypedef struct block:
        void *start
        size_t size

    block take_block(size_t size)
    void give_block(block b)


cdef inline int take_memory(size_t size, block *memory) except -1:
    """A block of the pool; MemoryError if there is none."""
    memory[0] = take_block(size)
    if memory.start == NULL:
        raise MemoryError(f"cannot allocate {size} bytes")
    return 0
