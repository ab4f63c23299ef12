"""A hierarchical timer wheel of slot numbers (Varghese and Lauck, SOSP'87), amortised O(1).

A tick is a nanosecond, counted from `base`: a coarser one would fire late by up to its length,
and what is over must not be counted or shown for a moment longer. Level k has 64 buckets of
64**k ticks. A timer sits on the level of the highest six-bit digit in which its tick differs
from `elapsed`, so every timer of a lower level is due before every timer of a higher one, and
the next is found from one bitmap a level. Buckets are circular lists in order of scheduling:
timers of one tick fire first come, first served, which makes every run repeatable.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from arena cimport NIL

cdef extern from * nogil:
    """
    #define ac_ctz64(x) __builtin_ctzll(x)
    #define ac_clz64(x) __builtin_clzll(x)
    """
    int ac_ctz64(unsigned long long) noexcept
    int ac_clz64(unsigned long long) noexcept

cdef enum:
    LEVELS = 11             # 66 bits: from any int64 to any other
    OFF = 0xFFFF            # bucket of a timer that is not scheduled

cdef packed struct Timer:
    int64_t when            # nanoseconds; INT64_MAX before it is first scheduled
    uint32_t prev
    uint32_t next
    uint16_t bucket         # level * 64 + index, or OFF

cdef struct Wheel:
    Timer* timers
    uint32_t cap
    uint32_t n
    int64_t base            # nanoseconds at tick 0
    uint64_t elapsed        # tick that has been reached
    uint64_t occupied[LEVELS]
    uint32_t heads[LEVELS * 64]

cdef inline void wheel_init(Wheel* w, int64_t base) noexcept nogil:
    memset(w, 0, sizeof(Wheel))
    w.base = base

cdef inline int wheel_reserve(Wheel* w, uint32_t cap) noexcept nogil:
    cdef Timer* more
    cdef uint32_t i
    if cap <= w.cap:
        return 0
    more = <Timer*>realloc(w.timers, <size_t>cap * sizeof(Timer))
    if more is NULL:
        return -1
    for i in range(w.cap, cap):
        more[i].bucket = OFF
        more[i].when = INT64_MAX
    w.timers = more
    w.cap = cap
    return 0

cdef inline uint64_t wheel_tick(Wheel* w, int64_t when) noexcept nogil:
    return <uint64_t>when - <uint64_t>w.base if when > w.base else 0

cdef inline int _wheel_level(Wheel* w, uint64_t tick) noexcept nogil:
    return (63 - ac_clz64((tick ^ w.elapsed) | 63)) // 6

cdef inline uint64_t _wheel_start(Wheel* w, int level, uint32_t b) noexcept nogil:
    """The first tick of bucket `b`."""
    return ((((w.elapsed >> (6 * level)) & ~<uint64_t>63) | b) << (6 * level))

cdef inline void _wheel_link(Wheel* w, uint32_t s) noexcept nogil:
    cdef uint64_t tick = wheel_tick(w, w.timers[s].when)
    cdef int level
    cdef uint32_t b, head, tail
    if tick < w.elapsed:
        tick = w.elapsed
    level = _wheel_level(w, tick)
    b = <uint32_t>(level * 64 + ((tick >> (6 * level)) & 63))
    w.timers[s].bucket = <uint16_t>b
    head = w.heads[b]
    if head == NIL:
        w.heads[b] = s
        w.timers[s].prev = s
        w.timers[s].next = s
        w.occupied[level] |= <uint64_t>1 << (b & 63)
    else:
        tail = w.timers[head].prev
        w.timers[tail].next = s
        w.timers[s].prev = tail
        w.timers[s].next = head
        w.timers[head].prev = s

cdef inline void wheel_cancel(Wheel* w, uint32_t s) noexcept nogil:
    cdef uint32_t b = w.timers[s].bucket, p, q
    if b == OFF:
        return
    p = w.timers[s].prev
    q = w.timers[s].next
    if q == s:
        w.heads[b] = NIL
        w.occupied[b >> 6] &= ~(<uint64_t>1 << (b & 63))
    else:
        w.timers[p].next = q
        w.timers[q].prev = p
        if w.heads[b] == s:
            w.heads[b] = q
    w.timers[s].bucket = OFF
    w.n -= 1

cdef inline void wheel_schedule(Wheel* w, uint32_t s, int64_t when) noexcept nogil:
    """(Re)schedule; a time that has passed fires at the next look."""
    wheel_cancel(w, s)
    w.timers[s].when = when
    _wheel_link(w, s)
    w.n += 1

cdef inline int64_t wheel_settle(Wheel* w, int64_t now) noexcept nogil:
    """Turn the wheel as far as `now`, and return when the first due timer came due, or INT64_MAX.

    Nothing is removed: `wheel_pop` takes what is due.
    """
    cdef uint64_t limit = wheel_tick(w, now), start
    cdef int level
    cdef uint32_t b, s, last, following
    while True:
        level = 0
        while level < LEVELS and w.occupied[level] == 0:
            level += 1
        if level == LEVELS:
            break
        b = <uint32_t>ac_ctz64(w.occupied[level])
        start = _wheel_start(w, level, b)
        if start > limit:
            break
        if level == 0:
            return <int64_t>(<uint64_t>w.base + start)
        # The whole bucket moves down a level or more, in order.
        w.elapsed = start if start > w.elapsed else w.elapsed
        b += <uint32_t>level * 64
        s = w.heads[b]
        last = w.timers[s].prev
        w.heads[b] = NIL
        w.occupied[level] &= ~(<uint64_t>1 << (b & 63))
        while True:
            following = w.timers[s].next
            _wheel_link(w, s)
            if s == last:
                break
            s = following
    if limit > w.elapsed:
        # Every bucket begins after `limit`, so no timer's level changes by this.
        w.elapsed = limit
    return INT64_MAX

cdef inline uint32_t wheel_pop(Wheel* w, int64_t now) noexcept nogil:
    """The next timer that is due at `now`, unscheduled; NIL when there is none."""
    cdef uint32_t s
    cdef uint64_t tick
    cdef int64_t when = wheel_settle(w, now)
    if when == INT64_MAX:
        return NIL
    tick = wheel_tick(w, when)
    w.elapsed = tick if tick > w.elapsed else w.elapsed
    s = w.heads[tick & 63]
    wheel_cancel(w, s)
    return s

cdef inline int64_t wheel_reached(Wheel* w) noexcept nogil:
    """How far it has been turned, in nanoseconds."""
    return <int64_t>(<uint64_t>w.base + w.elapsed)

cdef inline int64_t wheel_next(Wheel* w) noexcept nogil:
    """Nanoseconds before which nothing is due; INT64_MAX when nothing is scheduled."""
    cdef int level = 0
    while level < LEVELS and w.occupied[level] == 0:
        level += 1
    if level == LEVELS:
        return INT64_MAX
    return <int64_t>(<uint64_t>w.base + _wheel_start(w, level, <uint32_t>ac_ctz64(w.occupied[level])))

cdef inline bint wheel_sound(Wheel* w) noexcept nogil:
    """Buckets, bitmaps and counts agree, and every timer sits where its tick says."""
    cdef uint32_t b, s, n = 0
    cdef uint64_t tick
    cdef int level
    for b in range(LEVELS * 64):
        s = w.heads[b]
        if (s != NIL) != <bint>((w.occupied[b >> 6] >> (b & 63)) & 1):
            return False
        if s == NIL:
            continue
        while True:
            n += 1
            if n > w.n or w.timers[s].bucket != b or w.timers[w.timers[s].next].prev != s:
                return False
            tick = wheel_tick(w, w.timers[s].when)
            if tick < w.elapsed:
                tick = w.elapsed
            level = _wheel_level(w, tick)
            # An overdue timer keeps the bucket it had when it came due.
            if tick > w.elapsed and b != level * 64 + ((tick >> (6 * level)) & 63):
                return False
            s = w.timers[s].next
            if s == w.heads[b]:
                break
    return n == w.n

cdef inline void wheel_free(Wheel* w) noexcept nogil:
    free(w.timers)
    w.timers = NULL
