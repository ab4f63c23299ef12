"""A second order of slots, newest last, in an array of its own: the links in the arena are the policy's."""
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from arena cimport Arena, NIL

cdef struct Turn:
    uint32_t before
    uint32_t after

cdef struct Turns:
    Turn* turns
    uint32_t oldest
    uint32_t newest

cdef inline int turns_reserve(Turns* t, uint32_t cap) noexcept nogil:
    """Room for slots below `cap`; -1 when memory is out, and then nothing has changed."""
    cdef void* more = realloc(t.turns, <size_t>cap * sizeof(Turn))
    if more is NULL:
        return -1
    t.turns = <Turn*>more
    return 0

cdef inline void turns_free(Turns* t) noexcept nogil:
    free(t.turns)

cdef inline void turns_join(Turns* t, uint32_t s) noexcept nogil:
    t.turns[s].before = t.newest
    t.turns[s].after = NIL
    if t.newest != NIL:
        t.turns[t.newest].after = s
    else:
        t.oldest = s
    t.newest = s

cdef inline void turns_leave(Turns* t, uint32_t s) noexcept nogil:
    cdef uint32_t p = t.turns[s].before, q = t.turns[s].after
    if p != NIL:
        t.turns[p].after = q
    else:
        t.oldest = q
    if q != NIL:
        t.turns[q].before = p
    else:
        t.newest = p

cdef inline bint turns_sound(Turns* t, Arena* a) noexcept nogil:
    """It holds all of the arena's slots, and its links agree in both directions."""
    cdef uint32_t s = t.oldest, before = NIL, n = 0
    while s != NIL:
        if not a.slots[s].used or t.turns[s].before != before or n >= a.n:
            return False
        n += 1
        before = s
        s = t.turns[s].after
    return n == a.n and before == t.newest
