"""What is learned from a sample of the keys: how long they stay away, and which way of choosing victims does better.

Keys are sampled by their salted hash, so that all requests of a key are heard or none (Waldspurger et al.: SHARDS,
FAST 2015). Each wait of a sampled key labels the cells of `density`. Beside that, every way of choosing runs a cache of its
own over the sample, as much smaller as the sample is (mini-simulation: Waldspurger et al., USENIX ATC 2017); no values are
held, a key is a record of 16 bytes with its place in each of the small caches.

Another way is taken when it has had more hits than chance explains. A change costs nothing: both rank what is held alike.
"""
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from density cimport (AGES, Density, age_bin, density_came, density_fade, density_init, density_reached, density_scale)
from engine cimport mix64

cdef enum:
    OPEN = 0                # ways of admission: a newcomer has to be worth more than the least of those drawn,
    STRICT = 1              # and to be asked for a third time
    WAYS = 2
    LOOKS = 4               # residents that a small cache compares
    HEARD = 1024            # keys' worth of a cache that are heard, of any size of cache
    SMALL = 128             # entries of a small cache
    MOST_TRACKS = 8192
    TRACKS = 16             # to an entry, at most
    ENOUGH = 30000          # labels, after which one key in eight is heard: most of what small caches cost is learning
    ASKED = 3               # requests for which STRICT waits
    MEMORY = 30             # sizes of the cache over which a lead fades
    HALF_CACHES = 32        # sizes of the cache after which a label counts half,
    HALF_LABELS = 20000     # or labels
    SURE = 2                # standard deviations of chance that a lead has to be above

cdef extern from *:
    """
    #define adaptcache_STAY 1.3f
    """
    float STAY "adaptcache_STAY"        # how much more than the least the newcomer has to be worth

cdef struct Track:
    uint32_t tag            # the upper half of the mixed hash; 0: empty
    uint32_t tick           # of the last request
    uint8_t kind
    uint8_t done            # bins of the wait that are counted
    uint8_t count
    uint8_t spare
    uint16_t place[WAYS]    # in each small cache, from 1; 0: not held

cdef struct Trials:
    Density density
    double entries          # of the cache that this is about
    uint64_t salt
    uint64_t sample         # keys whose mixed hash is at most this are heard
    uint64_t trial          # and at most this: they take part in the small caches
    Track* tracks
    uint32_t mask, n, most, hand
    uint32_t* held[WAYS]    # the small caches: tracks, by place
    uint32_t n_held[WAYS]
    uint32_t room           # of each
    uint32_t latest[WAYS]   # place of the newcomer
    double lead             # of STRICT over OPEN, in hits that fade
    double apart            # requests that were a hit in one and a miss in the other, fading alike
    double fading
    int way                 # the better one
    uint64_t noise
    uint64_t labels         # since the sample was begun

cdef inline uint64_t noise_next(uint64_t* noise) noexcept nogil:
    noise[0] ^= noise[0] << 13
    noise[0] ^= noise[0] >> 7
    noise[0] ^= noise[0] << 17
    return noise[0] >> 32

cdef inline bint refused(int way, uint32_t count, float worth, float least) noexcept nogil:
    """Does the newcomer leave, that was asked for so often, or who is worth `least`?"""
    return worth < least * STAY or (way == STRICT and count < ASKED)

cdef inline void _trials_rates(Trials* t) noexcept nogil:
    """How fast labels and leads fade, by the sample and by the small caches as they are."""
    cdef double half = HALF_CACHES * t.entries * (<double>t.sample / 18446744073709551615.0)
    density_fade(&t.density, half if half > HALF_LABELS else HALF_LABELS)
    t.fading = 1 - 1 / (MEMORY * <double>t.room)

cdef inline uint64_t _share(double share) noexcept nogil:
    return <uint64_t>(share * 18446744073709549568.0) if share < 1 else <uint64_t>-1

cdef inline void _trials_start(Trials* t, double entries) noexcept nogil:
    """The sample for a cache of this size, and nothing in it."""
    t.entries = entries
    t.sample = _share(HEARD / entries)
    t.trial = _share(SMALL / entries)
    t.room = <uint32_t>(entries if entries < SMALL else SMALL)
    if t.trial > t.sample:
        t.trial = t.sample
    memset(t.tracks, 0, (<size_t>t.mask + 1) * sizeof(Track))
    t.n = t.hand = 0
    t.labels = 0
    t.n_held[0] = t.n_held[1] = t.latest[0] = t.latest[1] = 0
    t.lead = t.apart = 0
    _trials_rates(t)

cdef inline int trials_init(Trials* t, double entries, uint64_t salt) noexcept nogil:
    memset(t, 0, sizeof(Trials))
    t.salt = salt
    t.noise = salt | 1
    density_init(&t.density, entries)
    t.tracks = <Track*>calloc(1, sizeof(Track))
    t.held[0] = <uint32_t*>calloc(SMALL + 1, sizeof(uint32_t))
    t.held[1] = <uint32_t*>calloc(SMALL + 1, sizeof(uint32_t))
    if t.tracks is NULL or t.held[0] is NULL or t.held[1] is NULL:
        trials_free(t)
        return -1
    _trials_start(t, entries)
    return 0

cdef inline int trials_reserve(Trials* t, uint32_t slots) noexcept nogil:
    """Room for what so many entries are worth; -1 = memory is out, nothing changed."""
    cdef uint32_t most = TRACKS * slots if slots < MOST_TRACKS // TRACKS else MOST_TRACKS, cells = t.mask + 1, old = t.mask, i, j
    cdef Track* from_ = t.tracks
    cdef Track* to
    if most <= t.most:
        return 0
    while cells < 2 * most:
        cells *= 2
    to = <Track*>calloc(cells, sizeof(Track))
    if to is NULL:
        return -1
    t.tracks, t.mask, t.most, t.hand = to, cells - 1, most, 0
    for i in range(old + 1):
        if from_[i].tag:
            j = from_[i].tag & t.mask
            while to[j].tag:
                j = (j + 1) & t.mask
            to[j] = from_[i]
            _track_moved(t, j)
    free(from_)
    return 0

cdef inline void trials_free(Trials* t) noexcept nogil:
    free(t.tracks)
    free(t.held[0])
    free(t.held[1])

cdef inline void trials_clear(Trials* t) noexcept nogil:
    t.way = OPEN
    density_init(&t.density, t.entries)
    _trials_start(t, t.entries)

cdef inline void trials_scale(Trials* t, double entries) noexcept nogil:
    """The cache is of another size."""
    density_scale(&t.density, entries)
    _trials_start(t, entries)

# -- the records -----------------------------------------------------------------------------

cdef inline void _track_moved(Trials* t, uint32_t i) noexcept nogil:
    cdef int way
    for way in range(WAYS):
        if t.tracks[i].place[way]:
            t.held[way][t.tracks[i].place[way]] = i

cdef inline void _trial_drop(Trials* t, int way, uint32_t i) noexcept nogil:
    """Out of a small cache; the last of its places takes the one that is free."""
    cdef uint32_t place = t.tracks[i].place[way], last = t.n_held[way]
    t.tracks[i].place[way] = 0
    t.held[way][place] = t.held[way][last]
    t.tracks[t.held[way][place]].place[way] = <uint16_t>(place if place != last else 0)
    t.n_held[way] -= 1
    if t.latest[way] == place:
        t.latest[way] = 0
    elif t.latest[way] == last:
        t.latest[way] = place

cdef inline void _track_drop(Trials* t, uint32_t i) noexcept nogil:
    cdef uint32_t j = i, home
    cdef int way
    for way in range(WAYS):
        if t.tracks[i].place[way]:
            _trial_drop(t, way, i)
    while True:
        j = (j + 1) & t.mask
        if t.tracks[j].tag == 0:
            break
        home = t.tracks[j].tag & t.mask
        if ((j - home) & t.mask) >= ((j - i) & t.mask):
            t.tracks[i] = t.tracks[j]
            _track_moved(t, i)
            i = j
    memset(&t.tracks[i], 0, sizeof(Track))
    t.n -= 1

cdef inline void _at_risk(Trials* t, Track* r, int upto) noexcept nogil:
    if upto > r.done:
        density_reached(&t.density, r.kind, r.done, upto)
        r.done = <uint8_t>upto

cdef inline void _trials_sweep(Trials* t, uint32_t now, int steps) noexcept nogil:
    """Whoever waits has got so far."""
    cdef Track* r
    cdef int b
    while steps > 0:
        steps -= 1
        r = &t.tracks[t.hand]
        if r.tag:
            b = age_bin(&t.density, now - r.tick)
            _at_risk(t, r, b)
            if b == AGES - 1:
                _track_drop(t, t.hand)
                continue
        t.hand = (t.hand + 1) & t.mask

cdef inline void _trials_thin(Trials* t) noexcept nogil:
    """Too many: half as many keys are heard."""
    cdef uint32_t i = 0
    t.sample >>= 1
    if t.trial > t.sample:
        t.trial = t.sample
        t.room = (t.room + 1) // 2
    _trials_rates(t)
    while i <= t.mask:
        if t.tracks[i].tag and t.tracks[i].tag > <uint32_t>(t.sample >> 32):
            _track_drop(t, i)
        else:
            i += 1
    for i in range(WAYS):
        while t.n_held[i] > t.room:
            _trial_drop(t, i, t.held[i][t.n_held[i]])

# -- the small caches ------------------------------------------------------------------------

cdef inline uint32_t _trial_victim(Trials* t, int way, uint32_t now) noexcept nogil:
    cdef uint32_t s, best = 0, age, most = 0, place
    cdef float v, least = 0
    cdef Track* r
    cdef int k
    for k in range(LOOKS):
        place = 1 + <uint32_t>((noise_next(&t.noise) * t.n_held[way]) >> 32)
        s = t.held[way][place]
        r = &t.tracks[s]
        age = now - r.tick
        v = t.density.value[r.kind * AGES + age_bin(&t.density, age)]
        if k == 0 or v < least or (v == least and age > most):
            best, least, most = s, v, age
    if t.latest[way]:
        s = t.held[way][t.latest[way]]
        r = &t.tracks[s]
        if refused(way, r.count, t.density.value[r.kind * AGES + age_bin(&t.density, now - r.tick)], least):
            return s
    return best

cdef inline void _trial_request(Trials* t, uint32_t i, uint32_t now) noexcept nogil:
    """The small caches are asked for this key."""
    cdef bint hit[WAYS]
    cdef int way
    cdef double lead
    for way in range(WAYS):
        hit[way] = t.tracks[i].place[way] != 0
        if not hit[way]:
            while t.n_held[way] >= t.room:
                _trial_drop(t, way, _trial_victim(t, way, now))
            t.n_held[way] += 1
            t.held[way][t.n_held[way]] = i
            t.tracks[i].place[way] = <uint16_t>t.n_held[way]
            t.latest[way] = t.n_held[way]
    t.lead *= t.fading
    t.apart *= t.fading
    if hit[0] != hit[1]:
        t.lead += <int>hit[1] - <int>hit[0]
        t.apart += 1
    lead = t.lead if t.way == OPEN else -t.lead
    if lead > SURE * sqrt(t.apart):
        t.way = STRICT if t.way == OPEN else OPEN

cdef inline uint64_t trials_mixed(const Trials* t, int64_t hash) noexcept nogil:
    """So that nobody outside can tell who is heard."""
    return mix64(<uint64_t>hash ^ t.salt)

cdef inline void trials_hear(Trials* t, uint64_t h, uint8_t kind, uint32_t count, uint32_t now) noexcept nogil:
    """A request at `now` of the key of this mixed hash; it is of this kind from here on."""
    cdef uint32_t tag, i
    cdef Track* r
    cdef int b
    cdef bint enough = False
    if h > t.sample or t.most == 0:
        return
    tag = <uint32_t>(h >> 32)
    if tag == 0:
        tag = 1
    i = tag & t.mask
    while t.tracks[i].tag and t.tracks[i].tag != tag:
        i = (i + 1) & t.mask
    r = &t.tracks[i]
    if r.tag:
        b = age_bin(&t.density, now - r.tick)
        _at_risk(t, r, b + 1 if b < AGES - 1 else b)
        if b < AGES - 1:
            density_came(&t.density, r.kind, b)
        t.labels += 1
        enough = t.labels == ENOUGH
    elif t.n < t.most:
        r.tag = tag
        t.n += 1
    else:
        _trials_thin(t)
        return
    r.tick = now
    r.kind = kind
    r.count = <uint8_t>(count if count < 255 else 255)
    r.done = 0
    if h <= t.trial:
        _trial_request(t, i, now)
    _trials_sweep(t, now, 8)
    while enough and (t.sample >> 61 or t.sample > t.trial):
        _trials_thin(t)

cdef inline bint trials_sound(Trials* t) noexcept nogil:
    """Every track is found where it is, and every place of the small caches belongs to the track that says so."""
    cdef uint32_t i, j, n = 0
    cdef int way
    for i in range(t.mask + 1):
        if t.tracks[i].tag:
            n += 1
            j = t.tracks[i].tag & t.mask
            while j != i:
                if t.tracks[j].tag == 0:
                    return False
                j = (j + 1) & t.mask
            for way in range(WAYS):
                if t.tracks[i].place[way] > t.n_held[way]:
                    return False
    for way in range(WAYS):
        if t.n_held[way] > t.room or t.latest[way] > t.n_held[way]:
            return False
        for i in range(1, t.n_held[way] + 1):
            if t.held[way][i] > t.mask or t.tracks[t.held[way][i]].place[way] != i:
                return False
    return n == t.n
