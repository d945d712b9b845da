"""Drawing of a token from logits, with temperature, top-k and top-p (nucleus) filtering."""

from cython cimport floating
from libc.math cimport exp
from libc.stdlib cimport qsort


cdef struct Candidate:
    double weight
    Py_ssize_t id


cdef inline int by_falling_weight(const void *a, const void *b) noexcept nogil:
    cdef const Candidate *p = <const Candidate *>a
    cdef const Candidate *q = <const Candidate *>b
    if p.weight != q.weight:
        return -1 if p.weight > q.weight else 1
    return (p.id > q.id) - (p.id < q.id)


cdef inline void select_largest(Candidate *candidates, Py_ssize_t count, Py_ssize_t k) noexcept nogil:
    """Move the k candidates of largest weight to the front, in any order (Hoare's selection)."""
    cdef Py_ssize_t low = 0, high = count - 1, i, j
    cdef Candidate pivot, other
    while low < high:
        pivot = candidates[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while by_falling_weight(&candidates[i], &pivot) < 0:
                i += 1
            while by_falling_weight(&pivot, &candidates[j]) < 0:
                j -= 1
            if i <= j:
                other = candidates[i]
                candidates[i] = candidates[j]
                candidates[j] = other
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


cdef inline Py_ssize_t draw(const floating *logits, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                            const signed char *banned, double uniform, Candidate *candidates) noexcept nogil:
    """Draw an id from softmax(logits / temperature); -1 if a logit is NaN or infinite."""
    cdef Py_ssize_t j, kept = 0, best = -1, all_
    cdef double total = 0, reached = 0, bound
    for j in range(V):
        if not banned[j]:
            if logits[j] != logits[j]:
                return -1
            if best < 0 or logits[j] > logits[best]:
                best = j
    if best < 0 or logits[best] - logits[best] != 0:
        return -1
    if temperature == 0:
        return best
    for j in range(V):
        if not banned[j]:
            candidates[kept].id = j
            candidates[kept].weight = exp((<double>logits[j] - <double>logits[best]) / temperature)
            total += candidates[kept].weight
            kept += 1
    if not total > 0:
        return -1
    if 0 < top_k < kept or top_p < 1:
        if 0 < top_k < kept:
            select_largest(candidates, kept, top_k)
            kept = top_k
        elif top_p < 1:
            # Candidates below this bound weigh less than 1 - top_p together, so the nucleus needs none of them.
            bound = (1 - top_p) * total / kept
            all_ = kept
            kept = 0
            for j in range(all_):
                if candidates[j].weight >= bound:
                    candidates[kept] = candidates[j]
                    kept += 1
        qsort(candidates, kept, sizeof(Candidate), by_falling_weight)
        # The shortest prefix that reaches top_p of the total.
        for j in range(kept):
            reached += candidates[j].weight
            if reached >= top_p * total:
                kept = j + 1
                break
        total = reached
    uniform *= total
    reached = 0
    for j in range(kept):
        reached += candidates[j].weight
        if reached > uniform:
            return candidates[j].id
    return best
