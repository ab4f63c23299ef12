"""Value density: the hits that an entry still promises, for the memory and the time that it would take until then.

Least hit density (Beckmann, Chen, Cidon: LHD, NSDI 2018) with the best horizon in place of the mean, and a hazard's way
of counting. Entries are told apart by their kind, how often they were asked for and how long they were not before the
last time, and by their age since then. For each kind and bin of ages a cell counts the sampled keys that reached the bin
(`risk`) and those that came back in it (`came`), both fading; who has not come back yet counts as far as it got (Kaplan
and Meier 1958), so nothing has to be waited for. Where little was seen, a cell leans on all kinds together, and on a law
that is true of most caches: gaps have a heavy tail, and the more often a key came the sooner it comes.

From the cells follows the value: of all horizons the one with the most hits per time held. On the curve of (time held,
hits) that is the steepest line to a later point, and the steepest lines from all points are found in one walk.

Ages are in requests of the cache and binned by a quarter of an octave of its size, so bins mean the same in all sizes.
"""
from libc.math cimport exp2
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <string.h>
    static inline uint32_t adaptcache_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
    static float adaptcache_law[88 * 54];
    """
    uint32_t adaptcache_bits(float) noexcept nogil
    float* LAW "adaptcache_law"         # KINDS by AGES: what is believed of cells that nothing is known of, the same in every cache

cdef enum:
    COUNTS = 8              # classes of requests, by `count_class`
    GAPS = 11               # of the gap before the last request; 0: none is known
    KINDS = 88
    AGES = 54               # bins; the last has no end
    FINEST = 256            # parts of the cache's size: the first bin of ages
    ONE = 0x3F800000        # the bits of a float 1
    LEAN = 2                # labels' worth of belief in all kinds together,
    LEAN_LAW = 4            # and in the law
    OFTEN = 4096            # requests between two makings of the values, or an eighth of the cache's size

cdef struct Density:
    float risk[KINDS * AGES]    # how many more reached this bin than the one before
    float came[KINDS * AGES]
    float value[KINDS * AGES]   # hits per request held
    double weight           # of a label today: it grows, so that the others fade
    double growth
    float scale             # bins to a request
    uint32_t since          # requests since the values were made
    uint32_t period

cdef inline int age_bin(const Density* d, uint32_t age) noexcept nogil:
    cdef float x = <float>age * d.scale
    cdef uint32_t b
    if x < 1:
        return 0
    b = 1 + ((adaptcache_bits(x) - ONE) >> 21)
    return <int>b if b < AGES else AGES - 1

cdef inline double age_edge(int b) noexcept nogil:
    """Where a bin begins, in parts of FINEST."""
    return (1 + ((b - 1) & 3) * 0.25) * <double>(<uint64_t>1 << ((b - 1) >> 2)) if b else 0

cdef inline int gap_class(const Density* d, uint32_t gap) noexcept nogil:
    cdef float x = <float>gap * d.scale * <float>0.125
    cdef uint32_t b
    if x < 1:
        return 1
    b = 2 + ((adaptcache_bits(x) - ONE) >> 23)
    return <int>b if b < GAPS else GAPS - 1

cdef inline int count_class(uint32_t n) noexcept nogil:
    return <int>n - 1 if n < 4 else 3 if n < 6 else 4 if n < 9 else 5 if n < 14 else 6 if n < 30 else 7

cdef inline uint8_t kind_of(uint32_t count, int gap) noexcept nogil:
    return <uint8_t>(count_class(count) * GAPS + gap)

cdef inline double _law(int kind, int b) noexcept nogil:
    """The share of keys of this kind that come back in the bin: a Pareto law, its start the last gap."""
    cdef int count = kind // GAPS, gap = kind % GAPS
    cdef double alpha = 0.3, start = FINEST
    if count > 0 and gap > 0:
        alpha = 0.8 + 0.5 * count
        if alpha > 4:
            alpha = 4
        start = 6.0 * <double>(<uint64_t>1 << (gap - 1)) if gap > 1 else 4
    return 1 - ((start + age_edge(b)) / (start + age_edge(b + 1))) ** alpha

cdef inline void density_init(Density* d, double entries) noexcept nogil:
    """Nothing is known of a cache of this size."""
    cdef int kind, b
    memset(d, 0, sizeof(Density))
    d.weight = d.growth = 1
    d.scale = <float>(FINEST / entries)
    d.period = 32
    # (Whoever comes second writes what is there.)
    if LAW[0] == 0:
        for kind in range(KINDS - 1, -1, -1):
            for b in range(AGES - 2, -1, -1):
                LAW[kind * AGES + b] = <float>_law(kind, b)
    density_values(d)

cdef inline void density_fade(Density* d, double half) noexcept nogil:
    """A label weighs half as much after so many others."""
    d.growth = exp2(1.0 / half)

cdef inline void density_values(Density* d) noexcept nogil:
    cdef double everyone[AGES]
    cdef double hits[AGES]
    cdef double time[AGES]
    cdef int hull[AGES]
    cdef double reached[AGES]
    cdef double left, p, w = d.weight, at_risk
    cdef int kind, b, i, top
    memset(everyone, 0, sizeof(everyone))
    memset(reached, 0, sizeof(reached))
    for kind in range(KINDS):
        at_risk = 0
        for b in range(AGES - 1):
            at_risk += d.risk[kind * AGES + b]
            reached[b] += at_risk
            everyone[b] += d.came[kind * AGES + b]
    for b in range(AGES - 1):
        everyone[b] = (everyone[b] + 0.01 * w) / (reached[b] + w)
    hits[0] = time[0] = 0
    for kind in range(KINDS):
        left = 1
        at_risk = 0
        for b in range(AGES - 1):
            i = kind * AGES + b
            at_risk += d.risk[i]
            # (Sums and differences of floats round: fewer than came back cannot have been there.)
            p = (d.came[i] + w * (LEAN * everyone[b] + LEAN_LAW * LAW[i])) \
                / ((at_risk if at_risk > d.came[i] else d.came[i]) + w * (LEAN + LEAN_LAW))
            hits[b + 1] = hits[b] + left * p
            time[b + 1] = time[b] + left * (age_edge(b + 1) - age_edge(b)) * (1 - 0.5 * p)
            left *= 1 - p
            if left < 1e-9:
                left = 1e-9
        hull[0] = AGES - 1
        top = 0
        d.value[kind * AGES + AGES - 1] = 0
        for b in range(AGES - 2, -1, -1):
            while top > 0 and (hits[hull[top]] - hits[b]) * (time[hull[top - 1]] - time[b]) \
                    <= (hits[hull[top - 1]] - hits[b]) * (time[hull[top]] - time[b]):
                top -= 1
            d.value[kind * AGES + b] = <float>((hits[hull[top]] - hits[b]) / (time[hull[top]] - time[b]))
            top += 1
            hull[top] = b

cdef inline void density_request(Density* d, double entries) noexcept nogil:
    """Another request: now and then the values are made anew."""
    cdef int i
    d.since += 1
    if d.since < d.period:
        return
    d.since = 0
    if d.period < OFTEN or d.period < entries / 8:
        d.period += d.period // 2
    if d.weight > 1e6:
        for i in range(KINDS * AGES):
            d.risk[i] = <float>(d.risk[i] / d.weight)
            d.came[i] = <float>(d.came[i] / d.weight)
        d.weight = 1
    density_values(d)

cdef inline void density_scale(Density* d, double entries) noexcept nogil:
    """The cache is of another size: what was learned moves to the bins and gaps that it now belongs to, as near as whole octaves allow."""
    cdef float scale = <float>(FINEST / entries)
    cdef int octaves = 0, kind, b, to, gap, at
    cdef float ratio = scale / d.scale
    cdef float old[2 * KINDS * AGES]
    d.scale = scale
    while ratio >= 1.414 and octaves < 16:
        ratio *= 0.5
        octaves += 1
    while ratio < 0.7072 and octaves > -16:
        ratio *= 2
        octaves -= 1
    if octaves == 0:
        return
    memcpy(old, d.risk, sizeof(d.risk))
    memcpy(old + KINDS * AGES, d.came, sizeof(d.came))
    memset(d.risk, 0, sizeof(d.risk))
    memset(d.came, 0, sizeof(d.came))
    for kind in range(KINDS):
        gap = kind % GAPS
        to = gap + octaves if gap else 0
        if gap and to < 1:
            to = 1
        if to > GAPS - 1:
            to = GAPS - 1
        for b in range(AGES):
            at = b + 4 * octaves
            if at < 0:
                at = 0
            if at < AGES - 1:
                d.risk[(kind - gap + to) * AGES + at] += old[kind * AGES + b]
                d.came[(kind - gap + to) * AGES + at] += old[(KINDS + kind) * AGES + b]
    density_values(d)
