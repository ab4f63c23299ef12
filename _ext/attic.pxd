"""The attic: what is remembered of keys that nobody has asked for in a while, in 40 bytes each.

A key that comes back after days is worth as much as one that comes back after minutes, but its tracker is
too large to wait for it. When a wait has run out, what outlives it is packed into a memoir: gaps, counts, cost, and the
key's own hazards, four bits a bin (the early ones, whose rent is next to nothing, share
four bits among four); the next access unpacks it. Rounding is dithered: nearest levels would
swallow every small step of a cell that goes through here time and again, while a step that is taken with the right
probability is right on average.

Memoirs lie in chunks that never move and are found through linear hashing (Litwin, VLDB'80): one more bucket for
every LOAD keys, split off one at a time, so there is neither slack after a growth nor a pause at it. At most `most` are kept.
Each that comes in moves a hand over some others: those that nobody remembers any more go, and where the attic is
full, the one that was idle longest for how often it had been asked for.

The attic knows neither trackers nor prices: who asks says how long a memoir is good for.
"""
from libc.math cimport exp2, log2, sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from arena cimport NIL
from hazard cimport KeyCell
from record cimport Record, octave
from table cimport Salt, salt_draw, salted

cdef enum:
    SPANNED = 21            # bins of a key's cell that a wait can reach
    EARLY = 8               # of these, that are packed four to a level
    LEVELS_PACKED = 15      # two of four bins each, and thirteen of one
    REMEMBER = 64           # break-even times for which a key is remembered
    LOAD = 3                # keys to a bucket
    CHUNK = 512             # memoirs, or buckets, that are allocated at once
    MOST_MEMOIRS = (1 << 24) - 2
    LOOKS = 8               # memoirs that the hand compares when the attic is full

cdef packed struct Memoir:
    int64_t hash
    uint64_t link           # last access in units of 2**16 ns, modulo 2**40 (834 days); below it, 24 bits, the next of the bucket
    uint64_t bins           # LEVELS_PACKED hazards of four bits, and three bits: waits that reached the last bin
    uint16_t ns
    uint16_t size           # the upper half of a float
    uint16_t cost
    uint8_t gap1
    uint8_t gap2
    uint8_t count           # 0: the memoir is free
    uint8_t base
    uint8_t age             # from the first access to the last: log2 of seconds, in eighths
    uint8_t decayed[2]      # logarithms in eighths, and one
    uint8_t evidence        # four bits: waits that began; four: share of writes among their ends

cdef struct Attic:
    Memoir** chunks
    uint32_t** buckets      # chunks of heads
    uint32_t n_chunks
    uint32_t n_bucket_chunks
    uint32_t n_buckets
    uint32_t mask           # a power of two less one: mask + 1 <= n_buckets <= 2 * (mask + 1)
    uint32_t top            # memoirs from here on were never used
    uint32_t free_head
    uint32_t n
    uint32_t most
    uint32_t hand
    Salt salt
    uint64_t replaced       # memoirs that had to make room

# -- levels --------------------------------------------------------------------------------

cdef inline double _hazard_level(int i) noexcept nogil:
    cdef double x[16]
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = 0.0, 0.02, 0.045, 0.08, 0.125, 0.18, 0.25, 1.0 / 3
    x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15] = 0.42, 0.5, 0.58, 2.0 / 3, 0.75, 0.84, 0.92, 1.0
    return x[i & 15]

cdef inline double _began_level(int i) noexcept nogil:
    """0 to 6, then up to 40 by about a fifth each."""
    cdef uint8_t x[16]
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = 0, 1, 2, 3, 4, 5, 6, 8
    x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15] = 10, 12, 15, 18, 22, 27, 33, 40
    return x[i & 15]

cdef inline double _reached_level(int i) noexcept nogil:
    cdef uint8_t x[8]
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = 0, 1, 2, 4, 8, 15, 25, 40
    return x[i & 7]

cdef inline double _share_level(int i) noexcept nogil:
    return (i & 15) / 15.0

cdef inline int dithered(double x, int kind, double noise) noexcept nogil:
    """The level below `x` or the one above, so that the mean over `noise`, uniform in [0, 1), is `x`.

    kind: 0 hazards, 1 waits that began, 2 waits that reached the last bin, 3 the share of writes.
    """
    cdef int i = 0, last = 7 if kind == 2 else 15
    cdef double low, high
    while i < last and level(i + 1, kind) <= x + 1e-4:
        i += 1
    low = level(i, kind)
    if i == last or x <= low + 1e-4:
        return i
    high = level(i + 1, kind)
    return i + 1 if noise * (high - low) < x - low else i

cdef inline double level(int i, int kind) noexcept nogil:
    if kind == 0:
        return _hazard_level(i)
    if kind == 1:
        return _began_level(i)
    return _reached_level(i) if kind == 2 else _share_level(i)

cdef inline uint16_t _half(float x) noexcept nogil:
    """The upper half of a float that is zero or more, rounded to 8 bits."""
    cdef uint32_t bits
    memcpy(&bits, &x, 4)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return <uint16_t>(bits >> 16) if bits < 0x7F800000 else <uint16_t>0x7F7F

cdef inline float _whole(uint16_t half) noexcept nogil:
    cdef uint32_t bits = <uint32_t>half << 16
    cdef float x
    memcpy(&x, &bits, 4)
    return x

cdef inline uint8_t _eighths(double x) noexcept nogil:
    """log2(x) in eighths, for x of one or more."""
    cdef double k = 8 * log2(x) + 0.5 if x > 1 else 0
    return 255 if k >= 255 else <uint8_t>k

# -- memoirs by number -----------------------------------------------------------------------

cdef inline int attic_init(Attic* a, uint32_t most) noexcept nogil:
    memset(a, 0, sizeof(Attic))
    a.top = 1
    a.hand = 1
    salt_draw(&a.salt)
    a.most = most if most < MOST_MEMOIRS else MOST_MEMOIRS
    return _attic_bucket(a)

cdef inline void attic_free(Attic* a) noexcept nogil:
    cdef uint32_t i
    for i in range(a.n_chunks):
        free(a.chunks[i])
    for i in range(a.n_bucket_chunks):
        free(a.buckets[i])
    free(a.chunks)
    free(a.buckets)
    memset(a, 0, sizeof(Attic))

cdef inline Memoir* memoir(Attic* a, uint32_t r) noexcept nogil:
    return &a.chunks[r // CHUNK][r % CHUNK]

cdef inline uint32_t* _head(Attic* a, uint32_t b) noexcept nogil:
    return &a.buckets[b // CHUNK][b % CHUNK]

cdef inline uint32_t _next(Memoir* m) noexcept nogil:
    return <uint32_t>(m.link & 0xFFFFFF)

cdef inline void _set_next(Memoir* m, uint32_t r) noexcept nogil:
    m.link = (m.link & ~<uint64_t>0xFFFFFF) | r

cdef inline uint32_t _bucket_of(Attic* a, int64_t hash) noexcept nogil:
    cdef uint32_t b = salted(hash, &a.salt) & (a.mask * 2 + 1)
    return b if b < a.n_buckets else b & a.mask

cdef inline int _attic_bucket(Attic* a) noexcept nogil:
    """One more bucket, which takes half of another one's; -1 when memory is out, and then nothing changed."""
    cdef uint32_t b = a.n_buckets, r, following
    cdef uint32_t** more
    cdef uint32_t* from_
    cdef uint32_t* to
    if b // CHUNK >= a.n_bucket_chunks:
        if a.n_bucket_chunks & (a.n_bucket_chunks - 1) == 0:
            more = <uint32_t**>realloc(a.buckets, (a.n_bucket_chunks * 2 + 1) * sizeof(uint32_t*))
            if more is NULL:
                return -1
            a.buckets = more
        a.buckets[a.n_bucket_chunks] = <uint32_t*>malloc(CHUNK * sizeof(uint32_t))
        if a.buckets[a.n_bucket_chunks] is NULL:
            return -1
        a.n_bucket_chunks += 1
    to = _head(a, b)
    to[0] = NIL
    a.n_buckets += 1
    if b == 0:
        return 0
    if b > a.mask * 2 + 1:
        a.mask = a.mask * 2 + 1
    from_ = _head(a, b - (a.mask + 1))
    r = from_[0]
    from_[0] = NIL
    while r != NIL:
        following = _next(memoir(a, r))
        _attic_link(a, r)
        r = following
    return 0

cdef inline void _attic_link(Attic* a, uint32_t r) noexcept nogil:
    cdef uint32_t* head = _head(a, _bucket_of(a, memoir(a, r).hash))
    _set_next(memoir(a, r), head[0])
    head[0] = r

cdef inline uint32_t attic_find(Attic* a, int64_t hash) noexcept nogil:
    cdef uint32_t r = _head(a, _bucket_of(a, hash))[0]
    while r != NIL and memoir(a, r).hash != hash:
        r = _next(memoir(a, r))
    return r

cdef inline void attic_drop(Attic* a, uint32_t r) noexcept nogil:
    cdef uint32_t* head = _head(a, _bucket_of(a, memoir(a, r).hash))
    cdef uint32_t at = head[0]
    if at == r:
        head[0] = _next(memoir(a, r))
    else:
        while _next(memoir(a, at)) != r:
            at = _next(memoir(a, at))
        _set_next(memoir(a, at), _next(memoir(a, r)))
    memoir(a, r).count = 0
    _set_next(memoir(a, r), a.free_head)
    a.free_head = r
    a.n -= 1

cdef inline int64_t memoir_idle(const Memoir* m, int64_t now) noexcept nogil:
    """Nanoseconds since the last access, a little rounded up."""
    return <int64_t>(((<uint64_t>(now >> 16) - (m.link >> 24)) & ((<uint64_t>1 << 40) - 1)) << 16) + (now & 0xFFFF)

cdef inline double memoir_breakeven(const Memoir* m, double price) noexcept nogil:
    """ns; 0 where waiting costs nothing."""
    cdef double rent = <double>_whole(m.size) * price
    return _whole(m.cost) / rent if rent > 0 else 0

cdef inline bint memoir_over(const Memoir* m, int64_t now, double price) noexcept nogil:
    """Has the key been forgotten by `now`?"""
    cdef double b = memoir_breakeven(m, price)
    return b > 0 and <double>memoir_idle(m, now) > REMEMBER * b

cdef inline void _attic_sweep(Attic* a, int64_t now, double price) noexcept nogil:
    """Two more memoirs are looked at; where the attic is full, one of some goes."""
    cdef uint32_t i, r, worst = NIL
    cdef double score, most = -1
    cdef Memoir* m
    for i in range(LOOKS if a.n >= a.most else 2):
        if a.top <= 1:
            return
        r = a.hand
        a.hand = a.hand + 1 if a.hand + 1 < a.top else 1
        m = memoir(a, r)
        if m.count == 0:
            continue
        if memoir_over(m, now, price):
            attic_drop(a, r)
            if worst == r:
                worst = NIL
            continue
        score = <double>memoir_idle(m, now) / m.count
        if score > most:
            most = score
            worst = r
    if a.n >= a.most and worst != NIL:
        attic_drop(a, worst)
        a.replaced += 1

cdef inline uint32_t _attic_take(Attic* a) noexcept nogil:
    cdef uint32_t r = a.free_head
    cdef Memoir** more
    if r != NIL:
        a.free_head = _next(memoir(a, r))
        return r
    if a.top // CHUNK >= a.n_chunks:
        if a.n_chunks & (a.n_chunks - 1) == 0:
            more = <Memoir**>realloc(a.chunks, (a.n_chunks * 2 + 1) * sizeof(Memoir*))
            if more is NULL:
                return NIL
            a.chunks = more
        a.chunks[a.n_chunks] = <Memoir*>malloc(CHUNK * sizeof(Memoir))
        if a.chunks[a.n_chunks] is NULL:
            return NIL
        a.n_chunks += 1
    r = a.top
    a.top += 1
    return r

# -- packing -------------------------------------------------------------------------------

cdef inline double _noise(uint64_t* state) noexcept nogil:
    """Uniform in [0, 1); the constants are Knuth's (MMIX)."""
    state[0] = state[0] * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407
    return <double>(state[0] >> 11) / 9007199254740992.0

cdef inline void _pack_cells(Memoir* m, const KeyCell* key, uint64_t noise) noexcept nogil:
    cdef int i, k = 0
    cdef double ends = 0, writes = 0, stay = 1
    cdef uint8_t began = 0
    m.bins = 0
    m.evidence = 0
    m.base = 0
    if key is NULL:
        return
    m.base = key.base
    for i in range(SPANNED):
        if key.n[i]:
            if key.n[i] > began:
                began = key.n[i]
            ends += (<double>key.p[i] + key.q[i]) * key.n[i]
            writes += <double>key.q[i] * key.n[i]
            stay *= 1 - (<double>key.p[i] + key.q[i]) / 65535
        if i >= EARLY or i & 3 == 3:
            m.bins |= <uint64_t>dithered(1 - stay, 0, _noise(&noise)) << (4 * k)
            k += 1
            stay = 1
    m.bins |= <uint64_t>dithered(key.n[SPANNED - 1], 2, _noise(&noise)) << (4 * LEVELS_PACKED)
    m.evidence = <uint8_t>(dithered(began, 1, _noise(&noise))
                           | dithered(writes / ends if ends > 0 else 0, 3, _noise(&noise)) << 4)

cdef inline bint memoir_cells(const Memoir* m, KeyCell* key) noexcept nogil:
    """The key's own hazards; False where there are none, and `key` is blank then.

    How many waits reached a bin follows from those that began and the hazards before it.
    """
    cdef int i
    cdef double began = _began_level(m.evidence & 15), share = _share_level(m.evidence >> 4), h, n, stay
    cdef double reached = _reached_level(<int>(m.bins >> (4 * LEVELS_PACKED)))
    memset(key, 0, sizeof(KeyCell))
    key.base = m.base
    if began == 0:
        return False
    stay = began
    for i in range(SPANNED):
        n = stay if stay > reached else reached
        if n < 0.5:
            break
        h = _hazard_level(<int>(m.bins >> (4 * (i >> 2 if i < EARLY else i - EARLY + EARLY // 4))))
        if i < EARLY:
            if h < 0.999:
                h = 1 - sqrt(sqrt(1 - h))       # spread evenly
            elif i & 3 < 3:
                h = 0
        key.n[i] = <uint8_t>(n + 0.5)
        key.q[i] = <uint16_t>(65535 * h * share + 0.5)
        key.p[i] = <uint16_t>(<int>(65535 * h + 0.5) - <int>key.q[i])
        stay *= 1 - h
    return True

cdef inline bint attic_put(Attic* a, int64_t hash, const Record* rec, float size, float cost, const float* decayed,
                           const KeyCell* key, int64_t now, double price) noexcept nogil:
    """Remember a key that is not here yet; `key` may be NULL. False when there is no room, and then it is forgotten."""
    cdef uint32_t r
    cdef Memoir* m
    cdef int i
    _attic_sweep(a, now, price)
    if a.n >= a.most:
        return False
    if a.n >= a.n_buckets * LOAD and _attic_bucket(a) < 0:
        return False
    r = _attic_take(a)
    if r == NIL:
        return False
    m = memoir(a, r)
    m.hash = hash
    m.link = (<uint64_t>(rec.last >> 16) & ((<uint64_t>1 << 40) - 1)) << 24
    m.ns = rec.ns
    m.size = _half(size)
    m.cost = _half(cost)
    m.gap1 = rec.gap1
    m.gap2 = rec.gap2
    m.count = rec.count if rec.count else 1
    m.age = _eighths(1 + <double>(<uint32_t>((rec.last >> 24) - rec.born)) * 0.016777216)
    for i in range(2):
        m.decayed[i] = 1 + _eighths(decayed[i]) if decayed[i] > 0 else 0
        if decayed[i] > 0 and m.decayed[i] == 0:
            m.decayed[i] = 255
    _pack_cells(m, key, <uint64_t>hash ^ <uint64_t>rec.last * <uint64_t>0x9E3779B97F4A7C15)
    _attic_link(a, r)
    a.n += 1
    return True

cdef inline void memoir_record(const Memoir* m, int64_t now, Record* rec, float* size, float* cost,
                               float* decayed) noexcept nogil:
    """All but the cells, as it was at the last access."""
    cdef int i
    memset(rec, 0, sizeof(Record))
    rec.last = now - memoir_idle(m, now)
    rec.born = <uint32_t>((rec.last >> 24) - <int64_t>((exp2(m.age / 8.0) - 1) / 0.016777216 + 0.5))
    rec.ns = m.ns
    rec.gap1 = m.gap1
    rec.gap2 = m.gap2
    rec.count = m.count
    size[0] = _whole(m.size)
    cost[0] = _whole(m.cost)
    rec.size_class = <uint8_t>octave(size[0])
    rec.cost_class = <uint8_t>octave(cost[0])
    for i in range(2):
        decayed[i] = <float>exp2((m.decayed[i] - 1) / 8.0) if m.decayed[i] else 0

cdef inline uint64_t attic_bytes(Attic* a) noexcept nogil:
    """What is allocated for memoirs and for finding them."""
    return <uint64_t>a.n_chunks * (CHUNK * sizeof(Memoir) + 16) + <uint64_t>a.n_bucket_chunks * (CHUNK * sizeof(uint32_t) + 16)

cdef inline bint attic_sound(Attic* a) noexcept nogil:
    """Every memoir is found where its hash says, and all are counted."""
    cdef uint32_t b, r, n = 0, spare = 0
    for b in range(a.n_buckets):
        r = _head(a, b)[0]
        while r != NIL:
            n += 1
            if n > a.n or r >= a.top or memoir(a, r).count == 0 or _bucket_of(a, memoir(a, r).hash) != b:
                return False
            r = _next(memoir(a, r))
    r = a.free_head
    while r != NIL:
        spare += 1
        if spare >= a.top or memoir(a, r).count:
            return False
        r = _next(memoir(a, r))
    return n == a.n and n + spare + 1 == a.top and n <= a.most
