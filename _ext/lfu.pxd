"""LFU in constant time (Shah, Mitra and Matani 2010): the least often used leaves, of several the one that came to its
count first.

All entries are on one list, by count and, within a count, by when they came to it. Each count that occurs has a group,
which knows its newest entry: whoever is hit goes right behind the newest of the next count. Counts grow for ever, so
that what was popular once stays; `age` halves them all when the user thinks the past has lost its meaning.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from arena cimport Arena, NIL
from ilist cimport ilist_insert_before, ilist_sound, ilist_unlink
from policy cimport Policy, policy_answers, policy_room

cdef struct Group:
    uint64_t count          # uses of each of its entries; the first is the insertion
    uint32_t newest         # the entry that came last to this count; threads the free groups
    uint32_t n              # entries

cdef struct Lfu:
    uint32_t* of            # slot -> group
    Group* groups           # from 1; as many as slots, since each may have a count of its own
    uint32_t cap
    uint32_t top            # groups from here on were never used
    uint32_t free_head

cdef inline uint32_t _group(Lfu* l, uint64_t count) noexcept nogil:
    cdef uint32_t g = l.free_head
    if g != NIL:
        l.free_head = l.groups[g].newest
    else:
        g = l.top
        l.top += 1
    l.groups[g].count = count
    l.groups[g].newest = NIL
    l.groups[g].n = 0
    return g

cdef inline void _join(Policy* p, Arena* a, uint32_t s, uint32_t g, uint32_t before) noexcept nogil:
    """Become the newest of a group; of an empty one, in front of `before` (NIL: last of all)."""
    cdef Lfu* l = <Lfu*>p.own
    ilist_insert_before(a, &p.order, s, l.groups[g].newest if l.groups[g].n else before)
    l.groups[g].newest = s
    l.groups[g].n += 1
    l.of[s] = g

cdef inline void _leave(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    """Out of its group, which may end with it, and off the list."""
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t g = l.of[s]
    l.groups[g].n -= 1
    if l.groups[g].n == 0:
        l.groups[g].newest = l.free_head
        l.free_head = g
    elif l.groups[g].newest == s:
        l.groups[g].newest = a.slots[s].next
    ilist_unlink(a, &p.order, s)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t g = l.of[p.order.tail] if p.order.n else NIL
    if g == NIL or l.groups[g].count != 1:
        g = _group(l, 1)
    _join(p, a, s, g, NIL)

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t g = l.of[s], next_ = a.slots[l.groups[g].newest].prev, before
    cdef uint64_t count = l.groups[g].count + 1
    if next_ != NIL and l.groups[l.of[next_]].count == count:
        _leave(p, a, s)
        _join(p, a, s, l.of[next_], NIL)
    elif l.groups[g].n == 1:
        l.groups[g].count = count
    else:
        before = l.groups[g].newest
        if before == s:
            before = a.slots[s].next
        _leave(p, a, s)
        _join(p, a, s, _group(l, count), before)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    _leave(p, a, s)

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    return p.order.tail

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return p.order.tail if s == NIL else a.slots[s].prev    # from the least used

cdef inline void age(Policy* p, Arena* a) noexcept nogil:
    """Halve every count, rounding up. Counts that become equal keep their order: who was used more counts as newer."""
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t s, g = NIL, was = NIL, own_
    for g in range(1, l.top):
        if l.groups[g].n:
            l.groups[g].count -= l.groups[g].count >> 1
    g = NIL
    s = p.order.tail
    while s != NIL:
        own_ = l.of[s]
        if own_ != was:                 # the first of the next group
            was = own_
            if g != NIL and l.groups[g].count == l.groups[own_].count:
                l.groups[g].n += l.groups[own_].n
                l.groups[g].newest = l.groups[own_].newest
                l.groups[own_].n = 0
                l.groups[own_].newest = l.free_head
                l.free_head = own_
            else:
                g = own_
        l.of[s] = g
        s = a.slots[s].prev

cdef inline uint64_t uses(const Policy* p, uint32_t s) noexcept nogil:
    """How often an entry was used."""
    cdef Lfu* l = <Lfu*>p.own
    return l.groups[l.of[s]].count

cdef inline void resume(Policy* p, Arena* a, uint32_t s, uint64_t count) noexcept nogil:
    """An entry comes to a count at which none is newer and above which there is none. In the order of a walk this
    makes one policy another."""
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t g
    _leave(p, a, s)
    g = l.of[p.order.head] if p.order.n else NIL
    if g == NIL or l.groups[g].count != count:
        g = _group(l, count)
    _join(p, a, s, g, p.order.head)

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef Lfu* l = <Lfu*>p.own
    cdef uint32_t s = p.order.tail, g = NIL, n = 0, groups = 0
    if not ilist_sound(a, &p.order) or p.order.n != a.n:
        return False
    while s != NIL:
        if l.of[s] != g:                # a group ends where the next begins, and has all of its own
            if g != NIL and (l.groups[g].n != n or l.groups[l.of[s]].count <= l.groups[g].count):
                return False
            g = l.of[s]
            groups += 1
            n = 0
        n += 1
        if n == l.groups[g].n and l.groups[g].newest != s:
            return False
        s = a.slots[s].prev
    if g != NIL and l.groups[g].n != n:
        return False
    s = l.free_head
    while s != NIL:
        groups += 1
        if groups >= l.top:
            return False
        s = l.groups[s].newest
    return groups == l.top - 1          # none is lost

cdef inline int reserve(Policy* p, uint32_t cap) noexcept nogil:
    cdef Lfu* l = <Lfu*>p.own
    if cap <= l.cap:
        return 0
    if policy_room(<void**>&l.of, <size_t>cap * sizeof(uint32_t)) < 0 or policy_room(<void**>&l.groups, <size_t>cap * sizeof(Group)) < 0:
        return -1
    l.cap = cap
    return 0

cdef inline void release(Policy* p) noexcept nogil:
    cdef Lfu* l = <Lfu*>p.own
    free(l.of)
    free(l.groups)
    free(l)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef Lfu* l = <Lfu*>calloc(1, sizeof(Lfu))
    if l is NULL:
        return -1
    l.top = 1
    p.own = l
    p.reserve = reserve
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.age = age
    p.free = release
    return 0
