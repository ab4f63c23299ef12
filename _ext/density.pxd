"""Value density: what an entry is still good for, per unit of memory and time, learned from how entries like it fared."""
from libc.math cimport INFINITY, exp2
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from arena cimport Arena, NIL
from policy cimport Policy, policy_weight
from engine cimport mix64

cdef extern from *:
    """
    #include <string.h>
    static double ac_tune[32] = {8, 8, 10, 32, 2, 1024, 20000, 16};
    static inline uint32_t ac_float_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
    """
    double ac_tune[32]
    uint32_t ac_float_bits(float) noexcept nogil

cdef enum:
    COUNTS = 8
    GAPS = 11           # 0: none known
    CLASSES = 88
    AGES = 54           # the last: beyond
    OCTAVE = 4
    POOL = 32

cdef struct Meta:
    uint32_t tick
    uint8_t count
    uint8_t gap
    uint8_t kind
    uint8_t spare

cdef struct Track:
    uint32_t tag        # 0: empty
    uint32_t tick
    uint8_t kind
    uint8_t done        # bins it has been counted as at risk in

cdef struct Model:
    float risk[CLASSES * AGES]
    float came[CLASSES * AGES]
    float value[CLASSES * AGES]
    double weight, growth
    float scale         # 256 / entries
    double entries
    Track* tracks
    uint32_t mask, n, limit, hand
    uint64_t sample     # keys whose mixed hash is at most this are tracked
    uint64_t salt
    uint32_t since, period
    uint64_t labels

cdef inline int age_bin(const Model* m, uint32_t age) noexcept nogil:
    cdef float x = <float>age * m.scale
    cdef int b
    if x < 1:
        return 0
    b = 1 + <int>((ac_float_bits(x) - 0x3F800000u) >> 21)
    return b if b < AGES else AGES - 1

cdef inline double age_edge(int b) noexcept nogil:
    """Where the bin begins, in units of 1 / scale."""
    if b == 0:
        return 0
    b -= 1
    return (1 + (b & 3) * 0.25) * <double>(<uint64_t>1 << (b >> 2))

cdef inline int gap_class(const Model* m, uint32_t gap) noexcept nogil:
    """1 .. GAPS - 1"""
    cdef float x = <float>gap * m.scale * 0.125        # 1: a thirty-second of the entries
    cdef int b
    if x < 1:
        return 1
    b = 2 + <int>((ac_float_bits(x) - 0x3F800000u) >> 23)
    return b if b < GAPS else GAPS - 1

cdef inline int count_class(uint32_t n) noexcept nogil:
    return <int>(n - 1) if n < 4 else 3 if n < 6 else 4 if n < 9 else 5 if n < 14 else 6 if n < 30 else 7

cdef inline uint8_t kind_of(int count, int gap) noexcept nogil:
    return <uint8_t>(count_class(count) * GAPS + gap)

cdef inline void _model_rates(Model* m) noexcept nogil:
    cdef double rate = <double>m.sample / 18446744073709551615.0
    cdef double half = ac_tune[3] * m.entries * rate
    if half < ac_tune[6]:
        half = ac_tune[6]
    m.growth = exp2(1.0 / half)

cdef inline int model_init(Model* m, double entries, uint64_t salt) noexcept nogil:
    cdef uint32_t cells = 64
    memset(m, 0, sizeof(Model))
    m.entries = entries
    m.scale = <float>(256.0 / entries)
    m.salt = salt
    m.limit = <uint32_t>(33 * entries if entries < 250 else 8192)
    while cells < 2 * m.limit:
        cells *= 2
    m.mask = cells - 1
    m.tracks = <Track*>calloc(cells, sizeof(Track))
    if m.tracks is NULL:
        return -1
    m.sample = <uint64_t>-1
    if entries > ac_tune[5]:
        m.sample = <uint64_t>(18446744073709551615.0 * (ac_tune[5] / entries))
    m.weight = 1
    m.since = 0
    m.period = 32
    _model_rates(m)
    model_value(m)
    return 0

cdef inline void model_free(Model* m) noexcept nogil:
    free(m.tracks)

cdef inline void _at_risk(Model* m, Track* t, int upto) noexcept nogil:
    cdef int b
    if upto > AGES - 1:
        upto = AGES - 1
    for b in range(t.done, upto):
        m.risk[t.kind * AGES + b] += <float>m.weight
    if upto > t.done:
        t.done = <uint8_t>upto

cdef inline void _track_drop(Model* m, uint32_t i) noexcept nogil:
    cdef uint32_t j = i, home
    while True:
        j = (j + 1) & m.mask
        if m.tracks[j].tag == 0:
            break
        home = m.tracks[j].tag & m.mask
        if ((j - home) & m.mask) >= ((j - i) & m.mask):
            m.tracks[i] = m.tracks[j]
            i = j
    m.tracks[i].tag = 0
    m.n -= 1

cdef inline void _model_sweep(Model* m, uint32_t now, int steps) noexcept nogil:
    cdef Track* t
    cdef int b
    while steps:
        steps -= 1
        t = &m.tracks[m.hand]
        if t.tag:
            b = age_bin(m, now - t.tick)
            _at_risk(m, t, b)
            if b == AGES - 1:
                _track_drop(m, m.hand)
                continue
        m.hand = (m.hand + 1) & m.mask

cdef inline void model_hear(Model* m, int64_t hash, int kind, uint32_t now) noexcept nogil:
    """A request of this key at `now`; it is of this kind from here on."""
    cdef uint64_t h = mix64(<uint64_t>hash ^ m.salt)
    cdef uint32_t tag, i
    cdef Track* t
    cdef int b
    if h > m.sample:
        return
    tag = <uint32_t>(h >> 32)
    if tag == 0:
        tag = 1
    i = tag & m.mask
    while m.tracks[i].tag and m.tracks[i].tag != tag:
        i = (i + 1) & m.mask
    t = &m.tracks[i]
    if t.tag:
        b = age_bin(m, now - t.tick)
        _at_risk(m, t, b)
        if b < AGES - 1:
            m.risk[t.kind * AGES + b] += <float>m.weight
            m.came[t.kind * AGES + b] += <float>m.weight
        m.labels += 1
        m.weight *= m.growth
    elif m.n < m.limit:
        t.tag = tag
        m.n += 1
    else:
        m.sample >>= 1
        _model_rates(m)
        i = 0
        while i <= m.mask:
            if m.tracks[i].tag and m.tracks[i].tag > <uint32_t>(m.sample >> 32):
                _track_drop(m, i)
            else:
                i += 1
        return
    t.tick = now
    t.kind = <uint8_t>kind
    t.done = 0
    _model_sweep(m, now, 4)

cdef inline void model_value(Model* m) noexcept nogil:
    """For each kind and age: the most hits per time held that any horizon promises."""
    cdef double p[AGES]
    cdef double g[AGES]
    cdef double hits[AGES]
    cdef double time[AGES]
    cdef int stack[AGES]
    cdef double s, a, n, e, width, k = ac_tune[2] * m.weight
    cdef int c, b, top
    for b in range(AGES - 1):
        n = 0
        e = 0
        for c in range(CLASSES):
            n += m.risk[c * AGES + b]
            e += m.came[c * AGES + b]
        g[b] = (e + 0.01 * m.weight) / (n + 1 * m.weight)
    for c in range(CLASSES):
        s = 1
        hits[0] = 0
        time[0] = 0
        for b in range(AGES - 1):
            a = (m.came[c * AGES + b] + k * g[b]) / (m.risk[c * AGES + b] + k)
            if a > 1:
                a = 1
            width = age_edge(b + 1) - age_edge(b)
            hits[b + 1] = hits[b] + s * a
            time[b + 1] = time[b] + s * width * (1 - 0.5 * a)
            s *= 1 - a
            if s < 1e-9:
                s = 1e-9
        # The steepest way on from each point leads along the upper hull of all later ones.
        top = 0
        stack[0] = AGES - 1
        m.value[c * AGES + AGES - 1] = 0
        for b in range(AGES - 2, -1, -1):
            while top > 0 and (hits[stack[top]] - hits[b]) * (time[stack[top - 1]] - time[b]) <= (hits[stack[top - 1]] - hits[b]) * (time[stack[top]] - time[b]):
                top -= 1
            m.value[c * AGES + b] = <float>((hits[stack[top]] - hits[b]) / (time[stack[top]] - time[b]))
            top += 1
            stack[top] = b

cdef inline void model_tick(Model* m) noexcept nogil:
    """Another request of the cache."""
    cdef int i
    m.since += 1
    if m.since < m.period:
        return
    m.since = 0
    if m.period < m.entries / 8 or m.period < 4096:
        m.period += m.period // 2
    if m.weight > 1e6:
        for i in range(CLASSES * AGES):
            m.risk[i] = <float>(m.risk[i] / m.weight)
            m.came[i] = <float>(m.came[i] / m.weight)
        m.weight = 1
    model_value(m)
