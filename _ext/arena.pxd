"""Slots addressed by number, and the list of free ones.

Every other structure of the core names an entry by its slot number, so arrays can grow by
`realloc` without anything pointing into them. Slot 0 is never handed out: it is NIL.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

cdef enum:
    NIL = 0

cdef struct Slot:
    int64_t hash        # the key's hash, as Python gave it
    uint32_t prev       # towards the newest, in the policy's order
    uint32_t next       # towards the oldest; threads the free list while the slot is free
    uint8_t visited     # the policy's mark
    uint8_t used        # 1 while an entry lives here

cdef struct Arena:
    Slot* slots
    uint32_t cap        # slots 1 .. cap - 1 exist
    uint32_t top        # slots from here on were never handed out
    uint32_t free_head
    uint32_t n          # slots in use

cdef inline int arena_init(Arena* a, uint32_t cap) noexcept nogil:
    memset(a, 0, sizeof(Arena))
    a.top = 1
    return arena_reserve(a, cap if cap > 2 else 2)

cdef inline int arena_reserve(Arena* a, uint32_t cap) noexcept nogil:
    """Make room for slots below `cap`; -1 when memory is out, and then nothing changed."""
    cdef Slot* more
    if cap <= a.cap:
        return 0
    more = <Slot*>realloc(a.slots, <size_t>cap * sizeof(Slot))
    if more is NULL:
        return -1
    memset(more + a.cap, 0, <size_t>(cap - a.cap) * sizeof(Slot))
    a.slots = more
    a.cap = cap
    return 0

cdef inline uint32_t arena_take(Arena* a) noexcept nogil:
    """A slot nobody uses, or NIL when the arena must first grow."""
    cdef uint32_t s = a.free_head
    if s != NIL:
        a.free_head = a.slots[s].next
    elif a.top < a.cap:
        s = a.top
        a.top += 1
    else:
        return NIL
    memset(&a.slots[s], 0, sizeof(Slot))
    a.slots[s].used = 1
    a.n += 1
    return s

cdef inline void arena_give(Arena* a, uint32_t s) noexcept nogil:
    a.slots[s].used = 0
    a.slots[s].next = a.free_head
    a.free_head = s
    a.n -= 1

cdef inline void arena_free(Arena* a) noexcept nogil:
    free(a.slots)
    a.slots = NULL
