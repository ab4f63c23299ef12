# State: what of an engine outlives a process, as plain bytes with their layout beside them.
#
# The arrays are given as they lie in memory; `KINDS` says what their elements are made of, and
# learn/knowledge.py (which checks, clips and merges them) knows each kind by its name. Nothing here
# judges: what comes in has been validated whole, or it does not come in.

LAYOUT_VERSION = 1      # goes up when a number changes its meaning though no size does

cdef list _saved(Engine* g):
    """The arrays of fixed size: name, kind, address, elements. Saving one more is one line here."""
    return [
        ("everyone", "cell", <size_t>g.everyone, NB),
        ("habit", "cell", <size_t>g.habit, COUNTS * GAPS * NB),
        ("habit2", "cell", <size_t>g.habit2, COUNTS * GAPS * TURNS * NB),
        ("leaves", "cell", <size_t>g.leaves, LEAVES * NB),
        ("codes", "code", <size_t>g.codes, APP * CODES),       # the row after them is the namespaces'
        ("everywhere", "hedge", <size_t>&g.everywhere, 1),
        ("counts", "hedge", <size_t>g.counts, COUNTS),
    ]

cdef packed struct SavedKey:        # of a key, by the hash that this process gives it
    int64_t hash
    double idle             # seconds since its last access
    double age              # seconds since its first
    float size
    float cost
    uint32_t namespace_     # number, 0 = none
    uint8_t gap1
    uint8_t gap2
    uint8_t count
    uint8_t base
    float p[KEY_BINS]
    float q[KEY_BINS]
    float n[KEY_BINS]

cdef dict _kind(size_t size, fields):
    """A numpy dtype as a dict; fields are (name, format, offset)."""
    return {"names": [f[0] for f in fields], "formats": [f[1] for f in fields], "offsets": [f[2] for f in fields],
            "itemsize": size}

cdef str _experts = f"({EXPERTS},)f8"
cdef str _bins = f"({KEY_BINS},)f4"

KINDS = {
    "cell": _kind(sizeof(Cell), [
        ("p", "f4", <size_t>&(<Cell*>NULL).p), ("q", "f4", <size_t>&(<Cell*>NULL).q), ("n", "f4", <size_t>&(<Cell*>NULL).n)]),
    "code": _kind(sizeof(Coded), [("mean", "f4", <size_t>&(<Coded*>NULL).mean), ("n", "f4", <size_t>&(<Coded*>NULL).n)]),
    "hedge": _kind(sizeof(Hedge), [
        ("loss", _experts, <size_t>&(<Hedge*>NULL).loss), ("round", _experts, <size_t>&(<Hedge*>NULL).round_),
        ("weight", _experts, <size_t>&(<Hedge*>NULL).weight), ("gap", "f8", <size_t>&(<Hedge*>NULL).gap),
        ("lead", "f8", <size_t>&(<Hedge*>NULL).lead), ("lead_gap", "f8", <size_t>&(<Hedge*>NULL).lead_gap),
        ("labels", "f8", <size_t>&(<Hedge*>NULL).labels), ("pending", "u4", <size_t>&(<Hedge*>NULL).pending)]),
    "node": _kind(sizeof(TreeNode), [
        ("feature", "i4", <size_t>&(<TreeNode*>NULL).feature), ("threshold", "f4", <size_t>&(<TreeNode*>NULL).threshold),
        ("left", "u4", <size_t>&(<TreeNode*>NULL).left), ("right", "u4", <size_t>&(<TreeNode*>NULL).right)]),
    "key": _kind(sizeof(SavedKey), [
        ("hash", "i8", <size_t>&(<SavedKey*>NULL).hash), ("idle", "f8", <size_t>&(<SavedKey*>NULL).idle),
        ("age", "f8", <size_t>&(<SavedKey*>NULL).age), ("size", "f4", <size_t>&(<SavedKey*>NULL).size),
        ("cost", "f4", <size_t>&(<SavedKey*>NULL).cost), ("namespace", "u4", <size_t>&(<SavedKey*>NULL).namespace_),
        ("gap1", "u1", <size_t>&(<SavedKey*>NULL).gap1), ("gap2", "u1", <size_t>&(<SavedKey*>NULL).gap2),
        ("count", "u1", <size_t>&(<SavedKey*>NULL).count), ("base", "u1", <size_t>&(<SavedKey*>NULL).base),
        ("p", _bins, <size_t>&(<SavedKey*>NULL).p), ("q", _bins, <size_t>&(<SavedKey*>NULL).q),
        ("n", _bins, <size_t>&(<SavedKey*>NULL).n)]),
}

def layout():
    """Everything that a saved state's bytes depend on, as plain values; equal where they mean the same."""
    cdef Engine empty
    memset(&empty, 0, sizeof(Engine))
    return {
        "version": LAYOUT_VERSION, "kinds": KINDS, "arrays": {name: [kind, n] for name, kind, _, n in _saved(&empty)},
        "bins": [NB, FIRST, KEY_BINS], "contexts": [COUNTS, GAPS, TURNS], "features": [FEATURES, APP, CODES, GROUPS, LEAVES],
        "experts": [STATIC, MULTIPLE, HAZARD, USER, MAJORITY, EXPERTS],
    }

cdef void _weigh(Hedge* h, const double* prior, const Hedge* above) noexcept:
    """Set the weights from the losses: close a round in which nothing happened, and take only the weights from it."""
    cdef Hedge copy = h[0]
    cdef int e
    for e in range(EXPERTS):
        copy.round_[e] = 0
        copy.weight[e] = prior[e]
    copy.pending = 0
    hedge_close(&copy, prior, 1.0, 1e-3, above)
    h.loss = copy.loss
    h.weight = copy.weight
    h.lead = copy.lead

cdef void _weigh_all(Engine* g) noexcept:
    cdef int b
    cdef uint32_t i
    _weigh(&g.everywhere, g.prior, NULL)
    for b in range(COUNTS):
        _weigh(&g.counts[b], g.prior, &g.everywhere)
    for i in range(NAMESPACES):
        if g.namespaces[i].hedges is not NULL:
            for b in range(COUNTS):
                _weigh(&g.namespaces[i].hedges[b], g.prior, &g.everywhere)

cdef void _save_key(Engine* g, uint32_t s, int64_t now, SavedKey* out) noexcept:
    cdef Tracker* t = &g.trackers[s]
    cdef int i
    memset(out, 0, sizeof(SavedKey))
    out.hash = g.arena.slots[s].hash
    out.idle = <double>(now - t.rec.last) / 1e9 if now > t.rec.last else 0.0
    out.age = <double>(<uint32_t>((now >> 24) - t.rec.born)) * 0.016777216
    out.size = t.size
    out.cost = t.cost
    out.namespace_ = t.rec.ns
    out.gap1, out.gap2, out.count, out.base = t.rec.gap1, t.rec.gap2, t.rec.count, t.key.base
    for i in range(KEY_BINS):
        out.p[i] = <float>(t.key.p[i] / 65535.0)
        out.q[i] = <float>(t.key.q[i] / 65535.0)
        out.n[i] = t.key.n[i]

cdef bint _restore_key(Engine* g, int64_t now, const SavedKey* key) noexcept:
    """A key as it was when it was last asked for; False when there is no room, or no reason, to follow it."""
    cdef uint32_t s = engine_find(g, key.hash)
    cdef bint fresh = s == NIL
    cdef Tracker* t
    cdef int i
    cdef double breakeven, until = 9e18
    if fresh:
        breakeven = key.cost / (key.size * g.price) if g.price > 0 and key.size > 0 else 0
        if breakeven > 0:
            # As long as the engine itself would have kept it.
            until = <double>now - key.idle * 1e9 + 8 * breakeven
            if until <= now:
                return False
        if g.arena.n >= g.capacity:
            return False            # never at the price of keys that are there
        s = _engine_take(g, key.hash)
        if s == NIL:
            return False
        t = &g.trackers[s]
        t.rec.last = now - <int64_t>(key.idle * 1e9 + 0.5)
        t.rec.born = <uint32_t>(now >> 24) - <uint32_t>(key.age / 0.016777216 + 0.5)
        t.rec.gap1, t.rec.gap2, t.rec.count, t.rec.ns = key.gap1, key.gap2, key.count, <uint16_t>key.namespace_
        t.rec.size_class = <uint8_t>octave(key.size)
        t.rec.cost_class = <uint8_t>octave(key.cost)
        t.size = key.size
        t.cost = key.cost
        # No wait is open: what passed while nobody looked teaches nothing.
        if until < 9e18:
            wheel_schedule(&g.wheel, s, <int64_t>until)
    t = &g.trackers[s]
    if t.key is NULL:
        t.key = <KeyCell*>calloc(1, sizeof(KeyCell))
        if t.key is NULL:
            return False
    t.key.base = key.base
    for i in range(KEY_BINS):
        t.key.p[i] = <uint16_t>(key.p[i] * 65535 + 0.5)
        t.key.q[i] = <uint16_t>(key.q[i] * 65535 + 0.5)
        t.key.n[i] = <uint8_t>(key.n[i] if key.n[i] < g.key_limit else g.key_limit)
    return True
