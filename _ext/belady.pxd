"""Belady's MIN (1966): evict the entry whose next request is farthest away. Needs the future.

A max-heap of slots by next use, with each slot's place in it. It must admit, as the live policies; `belady_refuses`
is the question of a cache that need not (bypass), for which MIN with the newcomer among the candidates is the optimum.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

cdef struct Belady:
    uint32_t* heap
    uint32_t* place
    int64_t* next_use
    uint32_t n

cdef inline int belady_init(Belady* b, uint32_t slots) noexcept nogil:
    b.n = 0
    b.heap = <uint32_t*>malloc(<size_t>slots * sizeof(uint32_t))
    b.place = <uint32_t*>malloc(<size_t>slots * sizeof(uint32_t))
    b.next_use = <int64_t*>malloc(<size_t>slots * sizeof(int64_t))
    return -1 if b.heap is NULL or b.place is NULL or b.next_use is NULL else 0

cdef inline void _belady_set(Belady* b, uint32_t i, uint32_t s) noexcept nogil:
    b.heap[i] = s
    b.place[s] = i

cdef inline void _belady_up(Belady* b, uint32_t i) noexcept nogil:
    cdef uint32_t s = b.heap[i], parent
    while i > 0:
        parent = (i - 1) >> 1
        if b.next_use[b.heap[parent]] >= b.next_use[s]:
            break
        _belady_set(b, i, b.heap[parent])
        i = parent
    _belady_set(b, i, s)

cdef inline void _belady_down(Belady* b, uint32_t i) noexcept nogil:
    cdef uint32_t s = b.heap[i], child
    while True:
        child = 2 * i + 1
        if child >= b.n:
            break
        if child + 1 < b.n and b.next_use[b.heap[child + 1]] > b.next_use[b.heap[child]]:
            child += 1
        if b.next_use[b.heap[child]] <= b.next_use[s]:
            break
        _belady_set(b, i, b.heap[child])
        i = child
    _belady_set(b, i, s)

cdef inline void belady_insert(Belady* b, uint32_t s, int64_t next_use) noexcept nogil:
    b.next_use[s] = next_use
    b.heap[b.n] = s
    b.n += 1
    _belady_up(b, b.n - 1)

cdef inline void belady_hit(Belady* b, uint32_t s, int64_t next_use) noexcept nogil:
    b.next_use[s] = next_use        # always later than before
    _belady_up(b, b.place[s])

cdef inline void belady_remove(Belady* b, uint32_t s) noexcept nogil:
    cdef uint32_t i = b.place[s]
    b.n -= 1
    if i == b.n:
        return
    _belady_set(b, i, b.heap[b.n])
    _belady_up(b, i)
    _belady_down(b, b.place[b.heap[i]])

cdef inline uint32_t belady_victim(Belady* b) noexcept nogil:
    return b.heap[0]

cdef inline bint belady_refuses(Belady* b, int64_t next_use) noexcept nogil:
    """Is a newcomer wanted no sooner than everything that is held?"""
    return b.n > 0 and next_use >= b.next_use[b.heap[0]]

cdef inline void belady_free(Belady* b) noexcept nogil:
    free(b.heap)
    free(b.place)
    free(b.next_use)
