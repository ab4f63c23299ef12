"""W-TinyLFU: newcomers prove themselves in a window; who falls out of it must have been asked for more often than who would go.

Einziger, Friedman, Manes: TinyLFU, ACM Transactions on Storage 13 (2017), 35; the window and its size: Einziger, Eytan,
Friedman, Manes: Adaptive Software Cache Management, Middleware 2018. The window is an LRU. Behind it lies an SLRU: what is
hit in probation is protected, up to four fifths. When room is needed, the window's oldest is the candidate and competes with
the oldest in probation; frequencies come from a sketch. A candidate that looks warm is let in now and then all the same, so
that whoever makes one victim look hot does not close the cache.

The window starts at a hundredth and climbs the hill of hit ratios along a slope that is measured, not tried: a key that was
refused lately and is asked for again would have been a hit with a larger window; a key that fell out of the main part
lately, with a larger main part. Both are remembered as ghosts, a quarter as many as entries. Refused keys are the more
numerous, and they are half as good a sign: a larger window costs at once what it displaces. See docs/decisions-eviction.md.

With weights the window's and the protected part's bounds are weights. Who weighs more than the whole window waits at its
end, and is the next candidate.
"""
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from arena cimport Arena, NIL
from ghosts cimport (Ghosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_init, ghosts_list, ghosts_pop, ghosts_push,
                     ghosts_remove, ghosts_reserve, ghosts_sound)
from ilist cimport IList, ilist_insert_before, ilist_unlink
from parts cimport Parts, parts_after, parts_move, parts_push, parts_renew, parts_sound, parts_unlink, parts_weigh
from policy cimport Policy, policy_answers, policy_weight
from sketch cimport (Sketch, sketch_add, sketch_clear, sketch_count, sketch_fit, sketch_free, sketch_init, sketch_reserve)

cdef enum:
    PROBATION = 0           # parts
    PROTECTED = 1
    WINDOW = 2
    REFUSED = 0             # lists of ghosts: candidates, and others
    LOST = 1
    WARM = 6                # a count from which a refused candidate may be let in, once in 128 times

cdef struct TinyLfu:
    Sketch sketch
    Ghosts ghosts
    Parts parts
    double window           # its bound
    double whole            # the capacity that the bound is for
    double coming           # the weight of the newcomer that room is made for
    uint32_t candidate      # in probation; others of this round lie before it
    bint contested          # somebody had to go for the newcomer
    uint64_t noise

cdef inline void _tiny_last(Arena* a, IList* l, uint32_t s) noexcept nogil:
    """To the end of its list."""
    if l.tail != s:
        ilist_unlink(a, l, s)
        ilist_insert_before(a, l, s, NIL)

cdef inline double _tiny_protected(const TinyLfu* t) noexcept nogil:
    return 0.8 * (t.whole - t.window) if t.whole < INFINITY else 0

cdef inline void _tiny_demote(Policy* p, Arena* a, TinyLfu* t) noexcept nogil:
    cdef double most = _tiny_protected(t)
    while t.parts.held[PROTECTED] > most and t.parts.lists[PROTECTED].n:
        parts_move(&t.parts, p, a, PROBATION, t.parts.lists[PROTECTED].tail)

cdef inline void _tiny_overflow(Policy* p, Arena* a, TinyLfu* t) noexcept nogil:
    """The window's oldest move on until it has room for the newcomer."""
    cdef double room = t.coming if t.coming <= t.window else 0
    cdef uint32_t s
    while t.parts.lists[WINDOW].n and t.parts.held[WINDOW] + room > t.window:
        s = t.parts.lists[WINDOW].tail
        parts_move(&t.parts, p, a, PROBATION, s)
        if t.candidate == NIL:
            t.candidate = s

cdef inline void _tiny_start(Policy* p, TinyLfu* t) noexcept nogil:
    t.whole = p.capacity
    t.window = p.capacity * 0.01
    t.coming = 0
    t.candidate = NIL
    t.contested = False
    t.noise = (p.salt ^ <uint64_t>0x9E3779B97F4A7C15) | 1

cdef inline bint _tiny_admits(TinyLfu* t, Arena* a, uint32_t candidate, uint32_t victim) noexcept nogil:
    cdef uint32_t n = sketch_count(&t.sketch, a.slots[candidate].hash)
    if n > sketch_count(&t.sketch, a.slots[victim].hash):
        return True
    if n < WARM:
        return False
    t.noise ^= t.noise << 13
    t.noise ^= t.noise >> 7
    t.noise ^= t.noise << 17
    return t.noise >> 57 == 0

cdef inline void on_coming(Policy* p, Arena* a, int64_t hash, double weight) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    cdef uint32_t g = ghosts_find(&t.ghosts, hash)
    cdef double step
    sketch_add(&t.sketch, hash)
    t.coming = weight
    t.candidate = NIL
    t.contested = False
    if g == NIL:
        return
    step = t.ghosts.weights[g]
    if step > t.whole * 0.02:
        step = t.whole * 0.02
    if ghosts_list(&t.ghosts, g) == REFUSED:
        t.window += step / 2
        if t.window > t.whole * 0.9:
            t.window = t.whole * 0.9
    else:
        t.window -= step
        if t.window < t.whole * 0.01:
            t.window = t.whole * 0.01
    ghosts_remove(&t.ghosts, g)

cdef inline void on_insert(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    if not t.contested:                     # there was room, and nobody has moved up for the newcomer yet
        t.coming = policy_weight(p, s)
        _tiny_overflow(p, a, t)
    parts_push(&t.parts, p, a, WINDOW, s)
    if policy_weight(p, s) > t.window:
        _tiny_last(a, &t.parts.lists[WINDOW], s)
    sketch_fit(&t.sketch, a.n)
    t.coming = 0
    t.candidate = NIL
    t.contested = False

cdef inline void on_hit(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    cdef int where = a.slots[s].visited
    sketch_add(&t.sketch, a.slots[s].hash)
    t.candidate = NIL
    t.contested = False
    if where == PROBATION and policy_weight(p, s) <= _tiny_protected(t):
        parts_move(&t.parts, p, a, PROTECTED, s)
    elif where != WINDOW or policy_weight(p, s) <= t.window:
        parts_renew(&t.parts, a, s)
    if where != WINDOW:
        _tiny_demote(p, a, t)

cdef inline void weigh(Policy* p, Arena* a, uint32_t s, double before) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    cdef int where = a.slots[s].visited
    parts_weigh(&t.parts, p, a, s, before)
    if where == WINDOW and policy_weight(p, s) > t.window:
        _tiny_last(a, &t.parts.lists[WINDOW], s)
    _tiny_demote(p, a, t)

cdef inline void on_remove(Policy* p, Arena* a, uint32_t s, bint evicted) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    cdef int which = REFUSED if a.slots[s].visited == WINDOW or s == t.candidate else LOST
    cdef uint32_t g, most = (a.n >> 2) + 1
    if t.candidate == s:
        t.candidate = a.slots[s].prev
    parts_unlink(&t.parts, p, a, s)
    if not evicted:
        return
    g = ghosts_find(&t.ghosts, a.slots[s].hash)
    if g != NIL:
        ghosts_remove(&t.ghosts, g)
    while t.ghosts.lists[which].n >= most:
        ghosts_pop(&t.ghosts, which)
    ghosts_push(&t.ghosts, a.slots[s].hash, which, policy_weight(p, s))

cdef inline uint32_t victim(Policy* p, Arena* a) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    cdef uint32_t s
    t.contested = True
    _tiny_overflow(p, a, t)
    s = t.parts.lists[PROBATION].tail
    if s == NIL:
        s = t.parts.lists[PROTECTED].tail
        return s if s != NIL else t.parts.lists[WINDOW].tail
    if t.candidate == NIL or t.candidate == s:
        return s
    if _tiny_admits(t, a, t.candidate, s):
        t.candidate = a.slots[t.candidate].prev
        return s
    return t.candidate

cdef inline uint32_t after(Policy* p, Arena* a, uint32_t s) noexcept nogil:
    return parts_after(&(<TinyLfu*>p.own).parts, a, s)

cdef inline void resize(Policy* p, Arena* a) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    if 0 < t.whole < INFINITY and p.capacity < INFINITY:
        t.window *= p.capacity / t.whole
    else:
        t.window = p.capacity * 0.01
    t.whole = p.capacity
    t.candidate = NIL
    t.contested = False
    _tiny_demote(p, a, t)

cdef inline void clear(Policy* p, Arena* a) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    ghosts_clear(&t.ghosts)
    sketch_clear(&t.sketch)
    _tiny_start(p, t)

cdef inline int reserve(Policy* p, uint32_t slots) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    if sketch_reserve(&t.sketch, slots) < 0:
        return -1
    return ghosts_reserve(&t.ghosts, 2 * ((slots >> 2) + 1))

cdef inline bint check(Policy* p, Arena* a) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    if not parts_sound(&t.parts, p, a) or t.whole != p.capacity or not t.window >= 0 or not t.window <= t.whole:
        return False
    if t.candidate != NIL and (not a.slots[t.candidate].used or a.slots[t.candidate].visited != PROBATION):
        return False
    return ghosts_sound(&t.ghosts) and t.sketch.blocks <= t.sketch.room

cdef inline void free_(Policy* p) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>p.own
    ghosts_free(&t.ghosts)
    sketch_free(&t.sketch)
    free(t)

cdef inline int bind(Policy* p) noexcept nogil:
    cdef TinyLfu* t = <TinyLfu*>calloc(1, sizeof(TinyLfu))
    if t is NULL:
        return -1
    if sketch_init(&t.sketch, p.salt) < 0:
        free(t)
        return -1
    if ghosts_init(&t.ghosts) < 0:
        sketch_free(&t.sketch)
        free(t)
        return -1
    _tiny_start(p, t)
    p.own = t
    p.reserve = reserve
    p.on_coming = on_coming
    policy_answers(p, on_insert, on_hit, on_remove, victim, after, check)
    p.weigh = weigh
    p.resize = resize
    p.clear = clear
    p.free = free_
    return 0
