"""Value density: the hits that an entry still promises, for the memory and the time that it would take until then.

Least hit density (Beckmann, Chen, Cidon: LHD, NSDI 2018) with the best horizon in place of the mean, and a hazard's way
of counting. Entries are told apart by their kind, how often they were asked for and how long they were not before the
last time, and by their age since then. For each kind and bin of ages a cell counts the sampled keys that reached the bin
(`risk`) and those that came back in it (`came`), both fading; who has not come back yet counts as far as it got (Kaplan
and Meier 1958), so nothing has to be waited for. Where little was seen, a cell leans on all kinds together, and on a law
that is true of most caches: gaps have a heavy tail, and the more often a key came the sooner it comes.

From the cells follows the value: of all horizons the one with the most hits per time held. On the curve of (time held,
hits) that is the steepest line to a later point, and the steepest lines from all points are found in one walk. The values of a kind are
made anew when a good part of what is known of it is new.

What was learned may be true no more. The shares, summed, say how many returns are due of who waits; Page's test (Biometrika 1954) weighs
them against those that came, of each kind and of all together, for twice as many and for half as many (Lucas, Journal of Quality Technology
1985, for counts). Where returns are as was said and independent, the evidence gets above x once in exp(x) labels or less often. They are
not independent, so each alarm makes the test more patient for a while: a workload that goes on surprising is not a new one. After an alarm only a little
of the past counts: of the kind, or if all together were other than was said, of every kind.

Ages are in requests of the cache and binned by a quarter of an octave of its size, so bins mean the same in all sizes.
"""
from libc.math cimport INFINITY, exp2
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <string.h>
    static inline uint32_t adaptcache_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
    #define adaptcache_last 0.01
    #define adaptcache_calm 0.00005
    #define adaptcache_log2 0.6931471805599453
    static float adaptcache_law[88 * 54];
    static float adaptcache_first[88 * 54];
    static float adaptcache_first_due[88 * 54];
    static const uint8_t adaptcache_classes[30] = {0, 0, 1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6};
    """
    uint32_t adaptcache_bits(float) noexcept nogil
    double LOG2 "adaptcache_log2"
    double LAST "adaptcache_last"       # the share of requests that are the last of their key, halved with each class of requests
    double CALM "adaptcache_calm"       # of what patience has grown that a label takes away
    const uint8_t* CLASSES "adaptcache_classes"     # 1, 2, 3, 4 to 5, 6 to 8, 9 to 13, 14 to 29 requests, and more
    float* LAW "adaptcache_law"         # KINDS by AGES: what is believed of cells that nothing is known of, the same in every cache,
    float* FIRST "adaptcache_first"     # the values that follow from it
    float* FIRST_DUE "adaptcache_first_due"

cdef enum:
    COUNTS = 8              # classes of requests, by `count_class`
    GAPS = 11               # of the gap before the last request; 0: none is known
    KINDS = 88
    AGES = 54               # bins; the last has no end
    FINEST = 256            # parts of the cache's size: the first bin of ages
    ONE = 0x3F800000        # the bits of a float 1
    LEAN = 2                # labels' worth of belief in all kinds together,
    LEAN_LAW = 4            # and in the law
    START = 64              # labels' worth of patience before values are made anew
    PATIENCE = 16           # how much evidence (the logarithm of a likelihood ratio) an alarm takes,
    MORE_PATIENCE = 4       # and how many times as much after an alarm, which wears off
    KEEP = 512              # labels of a kind that count on after an alarm

cdef struct Density:
    float risk[(KINDS + 1) * AGES]      # how many more reached this bin than the one before; the last row is of all kinds
    float came[(KINDS + 1) * AGES]
    float value[(KINDS + 1) * AGES]     # hits per request held; of no kind: without end
    float due[KINDS * AGES]             # returns that are due of who waits until a bin: the shares of those before it summed
    double more[KINDS + 1]  # evidence that twice as many come back as are due, of the kind and of all,
    double fewer[KINDS + 1] # and half as many
    double patience[KINDS + 1]
    double told[KINDS + 1]  # labels, fading like them, of the kind and of all
    double made[KINDS + 1]  # and when its values were made last
    double weight           # of a label today: it grows, so that the others fade
    double growth
    float scale             # bins to a request

cdef inline int bin_of(uint32_t age, float scale) noexcept nogil:
    """Without a branch, so that several can be had at once."""
    cdef int a = <int>age, b
    a = a if a >= 0 else 0x7FFFFFFF
    # (What is below 1 has fewer bits.)
    b = 1 + (<int>(adaptcache_bits(<float>a * scale) - ONE) >> 21)
    b = b if b > 0 else 0
    return b if b < AGES - 1 else AGES - 1

cdef inline int age_bin(const Density* d, uint32_t age) noexcept nogil:
    return bin_of(age, d.scale)

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
    return CLASSES[n] if n < 30 else 7

cdef inline uint8_t kind_of(uint32_t count, int gap) noexcept nogil:
    return <uint8_t>(count_class(count) * GAPS + gap)

cdef inline double _law(int kind, int b) noexcept nogil:
    """The share of keys of this kind that come back in the bin: a Pareto law, its start the last gap; but a few were asked for the last time."""
    cdef int count = kind // GAPS, gap = kind % GAPS
    cdef double alpha = 0.3, start = FINEST, last = 0, before, after
    if count > 0 and gap > 0:
        alpha = 0.8 + 0.5 * count
        if alpha > 4:
            alpha = 4
        start = 6.0 * <double>(<uint64_t>1 << (gap - 1)) if gap > 1 else 4
        last = LAST / (1 << count)
    before = (start / (start + age_edge(b))) ** alpha
    after = (start / (start + age_edge(b + 1))) ** alpha
    return (1 - last) * (before - after) / ((1 - last) * before + last)

cdef inline void density_init(Density* d, double entries) noexcept nogil:
    """Nothing is known of a cache of this size."""
    cdef int kind, b
    memset(d, 0, sizeof(Density))
    d.weight = d.growth = 1
    d.scale = <float>(FINEST / entries)
    for b in range(AGES):
        d.value[KINDS * AGES + b] = INFINITY
    for kind in range(KINDS + 1):
        d.patience[kind] = PATIENCE
    # The first of all caches works it out. (Whoever does so at the same time writes the same.)
    if FIRST[0] == 0:
        for kind in range(KINDS):
            for b in range(AGES - 1):
                LAW[kind * AGES + b] = <float>_law(kind, b)
        density_values(d)
        memcpy(FIRST_DUE, d.due, KINDS * AGES * sizeof(float))
        memcpy(FIRST + 1, d.value + 1, (KINDS * AGES - 1) * sizeof(float))
        FIRST[0] = d.value[0]
    memcpy(d.due, FIRST_DUE, KINDS * AGES * sizeof(float))
    memcpy(d.value, FIRST, KINDS * AGES * sizeof(float))

cdef inline void density_fade(Density* d, double half) noexcept nogil:
    """A label weighs half as much after so many others."""
    d.growth = exp2(1.0 / half)

cdef inline void _everyone(const Density* d, double* share) noexcept nogil:
    """Of all kinds together: the share of those that reach a bin who come back in it."""
    cdef double reached = 0, w = d.weight
    cdef float came
    cdef int b
    for b in range(AGES - 1):
        reached += d.risk[KINDS * AGES + b]
        # (Sums and differences of floats round: fewer than none cannot have come back, nor fewer than that have been there.)
        came = d.came[KINDS * AGES + b] if d.came[KINDS * AGES + b] > 0 else 0
        share[b] = (came + 0.01 * w) / ((reached if reached > came else came) + w)

cdef inline void _make(Density* d, int kind, const double* everyone) noexcept nogil:
    cdef double hits[AGES]
    cdef double time[AGES]
    cdef int hull[AGES]
    cdef double left = 1, p, w = d.weight, at_risk = 0, due = 0
    cdef int b, top = 0
    cdef const float* risk = &d.risk[kind * AGES]
    cdef const float* came = &d.came[kind * AGES]
    cdef const float* law = LAW + kind * AGES
    cdef float* value = &d.value[kind * AGES]
    hits[0] = time[0] = 0
    for b in range(AGES - 1):
        at_risk += risk[b]
        p = (came[b] + w * (LEAN * everyone[b] + LEAN_LAW * law[b])) / ((at_risk if at_risk > came[b] else came[b]) + w * (LEAN + LEAN_LAW))
        due += p
        d.due[kind * AGES + b + 1] = <float>due
        hits[b + 1] = hits[b] + left * p
        time[b + 1] = time[b] + left * (age_edge(b + 1) - age_edge(b)) * (1 - 0.5 * p)
        left *= 1 - p
        if left < 1e-9:
            left = 1e-9
    hull[0] = AGES - 1
    value[AGES - 1] = 0
    for b in range(AGES - 2, -1, -1):
        while top > 0 and (hits[hull[top]] - hits[b]) * (time[hull[top - 1]] - time[b]) \
                <= (hits[hull[top - 1]] - hits[b]) * (time[hull[top]] - time[b]):
            top -= 1
        value[b] = <float>((hits[hull[top]] - hits[b]) / (time[hull[top]] - time[b]))
        top += 1
        hull[top] = b
    d.made[kind] = d.told[kind]

cdef inline void density_make(Density* d, int kind) noexcept nogil:
    """The values of a kind, by what is known now."""
    cdef double everyone[AGES]
    _everyone(d, everyone)
    _make(d, kind, everyone)

cdef inline void density_values(Density* d) noexcept nogil:
    cdef double everyone[AGES]
    cdef int kind
    _everyone(d, everyone)
    for kind in range(KINDS):
        _make(d, kind, everyone)
    d.made[KINDS] = d.told[KINDS]

cdef inline void _told(Density* d, int kind) noexcept nogil:
    """Something was learned of a kind: its values are made anew once that is a quarter more than they rest on; all of them, which lean on
    all labels, at half as much again."""
    d.told[kind] += d.weight
    d.told[KINDS] += d.weight
    if 2 * (d.told[KINDS] - d.made[KINDS]) > d.made[KINDS] + START * d.weight:
        density_values(d)
    elif 4 * (d.told[kind] - d.made[kind]) > d.made[kind] + START * d.weight:
        density_make(d, kind)

cdef inline void density_reached(Density* d, int kind, int first, int end) noexcept nogil:
    """Somebody waited from the first of these bins to the beginning of the last."""
    cdef float w = <float>d.weight
    d.risk[kind * AGES + first] += w
    d.risk[kind * AGES + end] -= w
    d.risk[KINDS * AGES + first] += w
    d.risk[KINDS * AGES + end] -= w
    _told(d, kind)

cdef inline void density_came(Density* d, int kind, int b) noexcept nogil:
    """Somebody came back in this bin; later labels weigh more."""
    cdef int i
    d.came[kind * AGES + b] += <float>d.weight
    d.came[KINDS * AGES + b] += <float>d.weight
    _told(d, kind)
    d.weight *= d.growth
    if d.weight > 1e6:
        for i in range((KINDS + 1) * AGES):
            d.risk[i] = <float>(d.risk[i] / d.weight)
            d.came[i] = <float>(d.came[i] / d.weight)
        for i in range(KINDS + 1):
            d.told[i] /= d.weight
            d.made[i] /= d.weight
        d.weight = 1

cdef inline bint _forget(Density* d, int kind) noexcept nogil:
    """No more than a few labels of this kind count."""
    cdef double told = d.told[kind], keep = KEEP * d.weight, part
    cdef float was
    cdef int i, b
    if told <= keep:
        return False
    part = keep / told
    for b in range(AGES):
        i = kind * AGES + b
        was = d.risk[i]
        d.risk[i] = <float>(was * part)
        d.risk[KINDS * AGES + b] -= was - d.risk[i]
        was = d.came[i]
        d.came[i] = <float>(was * part)
        d.came[KINDS * AGES + b] -= was - d.came[i]
    d.told[kind] = keep
    d.told[KINDS] -= told - keep
    if d.made[KINDS] > d.told[KINDS]:
        d.made[KINDS] = d.told[KINDS]
    return True

cdef inline bint _alarm(Density* d, int k, double due, bint came) noexcept nogil:
    """Is what happened to this kind, or to all, too unlike what was due?"""
    d.patience[k] -= (d.patience[k] - PATIENCE) * CALM
    d.more[k] += (LOG2 if came else 0) - due
    d.fewer[k] += 0.5 * due - (LOG2 if came else 0)
    if d.more[k] < 0:
        d.more[k] = 0
    if d.fewer[k] < 0:
        d.fewer[k] = 0
    if d.more[k] < d.patience[k] and d.fewer[k] < d.patience[k]:
        return False
    d.more[k] = d.fewer[k] = 0
    d.patience[k] *= MORE_PATIENCE
    return True

cdef inline bint density_surprised(Density* d, int kind, int first, int end, bint came) noexcept nogil:
    """Somebody waited from the first of these bins to the beginning of the last, and came back just before that, or not yet. Was anything
    forgotten of all kinds over it?"""
    cdef double due = <double>d.due[kind * AGES + end] - d.due[kind * AGES + first]
    cdef bint forgot = False
    if _alarm(d, kind, due, came) and _forget(d, kind):
        density_make(d, kind)
    if _alarm(d, KINDS, due, came):
        for kind in range(KINDS):
            forgot |= _forget(d, kind)
        density_values(d)
    return forgot

cdef inline void density_scale(Density* d, double entries) noexcept nogil:
    """The cache is of another size: what was learned moves to the bins and gaps that it now belongs to, as near as whole octaves allow."""
    cdef float scale = <float>(FINEST / entries)
    cdef int octaves = 0, kind, b, to, gap, at
    cdef float ratio = scale / d.scale
    cdef float old[2 * KINDS * AGES]
    cdef double told[KINDS]
    d.scale = scale
    while ratio >= 1.414 and octaves < 16:
        ratio *= 0.5
        octaves += 1
    while ratio < 0.7072 and octaves > -16:
        ratio *= 2
        octaves -= 1
    if octaves == 0:
        return
    memcpy(old, d.risk, KINDS * AGES * sizeof(float))
    memcpy(old + KINDS * AGES, d.came, KINDS * AGES * sizeof(float))
    memcpy(told, d.told, KINDS * sizeof(double))
    memset(d.risk, 0, sizeof(d.risk))
    memset(d.came, 0, sizeof(d.came))
    memset(d.told, 0, KINDS * sizeof(double))
    memset(d.more, 0, sizeof(d.more))
    memset(d.fewer, 0, sizeof(d.fewer))
    for kind in range(KINDS):
        gap = kind % GAPS
        to = gap + octaves if gap else 0
        if gap and to < 1:
            to = 1
        if to > GAPS - 1:
            to = GAPS - 1
        d.told[kind - gap + to] += told[kind]
        for b in range(AGES):
            at = b + 4 * octaves
            if at < 0:
                at = 0
            if at < AGES - 1:
                d.risk[(kind - gap + to) * AGES + at] += old[kind * AGES + b]
                d.came[(kind - gap + to) * AGES + at] += old[(KINDS + kind) * AGES + b]
                d.risk[KINDS * AGES + at] += old[kind * AGES + b]
                d.came[KINDS * AGES + at] += old[(KINDS + kind) * AGES + b]
    density_values(d)
