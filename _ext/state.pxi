# State: what of an engine, and of learned validity, outlives a process, as plain bytes with their layout beside them.
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
        ("sides", "side", <size_t>g.sides, ROWS * SPAN),       # found by what means the same everywhere
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
    float decayed[2]
    uint32_t serial         # of its last wait: every wait draws anew, also after a restart

cdef packed struct SavedPrior:      # of change rates
    double share[CLASSES]
    double n                # keys behind it
    double shaken
    double moved
    double unmoved

cdef packed struct SavedRisk:       # what came of reloads of about one risk
    double found
    double feared

cdef packed struct SavedChange:     # what is known of the changes of one key, by the hash that this process gives it
    int64_t hash
    float evidence[CLASSES]
    double told
    double reads
    double seconds
    uint32_t namespace_     # number, 0 = none

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
        ("n", _bins, <size_t>&(<SavedKey*>NULL).n), ("decayed", "(2,)f4", <size_t>&(<SavedKey*>NULL).decayed),
        ("serial", "u4", <size_t>&(<SavedKey*>NULL).serial)]),
    "side": _kind(sizeof(Side), [("p", "f4", <size_t>&(<Side*>NULL).p), ("n", "f4", <size_t>&(<Side*>NULL).n)]),
    "prior": _kind(sizeof(SavedPrior), [
        ("share", f"({CLASSES},)f8", <size_t>&(<SavedPrior*>NULL).share), ("n", "f8", <size_t>&(<SavedPrior*>NULL).n),
        ("shaken", "f8", <size_t>&(<SavedPrior*>NULL).shaken), ("moved", "f8", <size_t>&(<SavedPrior*>NULL).moved),
        ("unmoved", "f8", <size_t>&(<SavedPrior*>NULL).unmoved)]),
    "risk": _kind(sizeof(SavedRisk), [
        ("found", "f8", <size_t>&(<SavedRisk*>NULL).found), ("feared", "f8", <size_t>&(<SavedRisk*>NULL).feared)]),
    "change": _kind(sizeof(SavedChange), [
        ("hash", "i8", <size_t>&(<SavedChange*>NULL).hash),
        ("evidence", f"({CLASSES},)f4", <size_t>&(<SavedChange*>NULL).evidence), ("told", "f8", <size_t>&(<SavedChange*>NULL).told),
        ("reads", "f8", <size_t>&(<SavedChange*>NULL).reads), ("seconds", "f8", <size_t>&(<SavedChange*>NULL).seconds),
        ("namespace", "u4", <size_t>&(<SavedChange*>NULL).namespace_)]),
}

def layout():
    """Everything that a saved state's bytes depend on, as plain values; equal where they mean the same."""
    cdef Engine empty
    memset(&empty, 0, sizeof(Engine))
    return {
        "version": LAYOUT_VERSION, "kinds": KINDS, "arrays": {name: [kind, n] for name, kind, _, n in _saved(&empty)},
        "bins": [NB, FIRST, KEY_BINS], "contexts": [COUNTS, GAPS, TURNS], "features": [FEATURES, APP, CODES, GROUPS, LEAVES],
        "experts": [STATIC, MULTIPLE, HAZARD, USER, MAJORITY, EXPERTS],
        "stack": [SIDES, CHAIN_TERMS, TERMS, BUCKETS, STAGES, ROWS, SPAN], "changes": [RISKS, RATES, CLASSES],
    }

cdef void _weigh(Hedge* h, const double* prior, const Hedge* above) noexcept:
    """Set the weights from the losses where there are none (a merge, or format 2, gives none).

    Closes a round in which nothing happened, and takes only the weights from it.
    """
    cdef Hedge copy = h[0]
    cdef double total = 0
    cdef int e
    for e in range(EXPERTS):
        total += h.weight[e]
    if total > 0:
        return
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

cdef void _save_history(int64_t hash, const Record* rec, float size, float cost, const float* decayed, const KeyCell* key,
                        int64_t now, SavedKey* out) noexcept:
    cdef int i
    memset(out, 0, sizeof(SavedKey))
    out.hash = hash
    out.idle = <double>(now - rec.last) / 1e9 if now > rec.last else 0.0
    out.age = <double>(<uint32_t>((now >> 24) - rec.born)) * 0.016777216
    out.size = size
    out.cost = cost
    out.namespace_ = rec.ns
    out.gap1, out.gap2, out.count, out.base = rec.gap1, rec.gap2, rec.count, key.base
    for i in range(KEY_BINS):
        out.p[i] = <float>(key.p[i] / 65535.0)
        out.q[i] = <float>(key.q[i] / 65535.0)
        out.n[i] = key.n[i]
    out.decayed[0], out.decayed[1] = decayed[0], decayed[1]

cdef void _save_key(Engine* g, uint32_t s, int64_t now, SavedKey* out) noexcept:
    cdef Tracker* t = &g.trackers[s]
    _save_history(g.arena.slots[s].hash, &t.rec, t.size, t.cost, t.decayed, t.key, now, out)
    out.serial = t.serial

cdef bint _save_memoir(Engine* g, uint32_t r, int64_t now, SavedKey* out) noexcept:
    """A key of the attic; False, and nothing is written, where it has no history of its own or is forgotten."""
    cdef Memoir* m = memoir(&g.attic, r)
    cdef Record rec
    cdef KeyCell key
    cdef float size, cost
    cdef float decayed[2]
    if m.count < 2 or memoir_over(m, now, g.price):
        return False
    memoir_record(m, now, &rec, &size, &cost, decayed)
    memoir_cells(m, &key)
    _save_history(m.hash, &rec, size, cost, decayed, &key, now, out)
    return True

cdef bint _restore_key(Engine* g, int64_t now, const SavedKey* key) noexcept:
    """A key as it was when it was last asked for; False when there is no room, or no reason, to follow it."""
    cdef uint32_t s = engine_find(g, key.hash)
    cdef Record rec
    cdef Tracker* t
    cdef KeyCell cells
    cdef int i
    cdef int64_t waits = INT64_MAX      # how long a wait of this key lasts
    cdef double breakeven
    memset(&cells, 0, sizeof(KeyCell))
    cells.base = key.base
    for i in range(KEY_BINS):
        cells.p[i] = <uint16_t>(key.p[i] * 65535 + 0.5)
        cells.q[i] = <uint16_t>(key.q[i] * 65535 + 0.5)
        cells.n[i] = <uint8_t>(key.n[i] if key.n[i] < g.key_limit else g.key_limit)
    if s == NIL:
        memset(&rec, 0, sizeof(Record))
        rec.last = now - <int64_t>(key.idle * 1e9 + 0.5)
        rec.born = <uint32_t>(now >> 24) - <uint32_t>(key.age / 0.016777216 + 0.5)
        rec.gap1, rec.gap2, rec.count, rec.ns = key.gap1, key.gap2, key.count, <uint16_t>key.namespace_
        rec.size_class = <uint8_t>octave(key.size)
        rec.cost_class = <uint8_t>octave(key.cost)
        breakeven = key.cost / (key.size * g.price) if g.price > 0 and key.size > 0 else 0
        if breakeven > 0:
            # As the engine itself would have it: followed for as long as a wait lasts, then remembered.
            if breakeven < 4e18:
                waits = edge(bin_of(<int64_t>breakeven) + 3)
            if key.idle * 1e9 > REMEMBER * breakeven or not engine_follows(g, key.hash):
                return False
        s = attic_find(&g.attic, key.hash)
        if s != NIL:
            if memoir_idle(memoir(&g.attic, s), now) <= now - rec.last:
                return False            # what is known here is the newer
            attic_drop(&g.attic, s)
        if now - rec.last > waits:
            if g.attic.n >= g.attic.most:
                return False            # never at the price of keys that are there
            return attic_put(&g.attic, key.hash, &rec, key.size, key.cost, key.decayed, &cells, now, g.price)
        if g.arena.n >= g.capacity:
            return False
        s = _engine_take(g, key.hash)
        if s == NIL:
            return False
        t = &g.trackers[s]
        t.rec = rec
        t.size = key.size
        t.cost = key.cost
        t.breakeven = breakeven         # what the decayed counts fade by
        t.decayed = key.decayed
        t.serial = key.serial
        # No wait is open: what passed while nobody looked teaches nothing.
        if waits < INT64_MAX - now:
            wheel_schedule(&g.wheel, s, rec.last + waits)
    t = &g.trackers[s]
    if t.key is NULL:
        t.key = <KeyCell*>malloc(sizeof(KeyCell))
        if t.key is NULL:
            return False
    t.key[0] = cells
    return True

# -- learned validity: beliefs about change, not the books of a budget ------------------------

cdef void _save_prior(Prior* g, SavedPrior* out) noexcept:
    out.share, out.n = g.share, g.n
    out.shaken, out.moved, out.unmoved = g.shaken, g.moved, g.unmoved

cdef void _restore_prior(Prior* g, const SavedPrior* saved) noexcept:
    """What is known of a group; which change was found last is a matter of moments, and of this process."""
    g.share, g.n = saved.share, saved.n
    g.shaken, g.moved, g.unmoved = saved.shaken, saved.moved, saved.unmoved

cdef dict _save_fresh(Fresh* f):
    """All that may go to another process. `groups`: priors by number, of those that learned something."""
    cdef SavedPrior prior
    cdef SavedRisk risks[RISKS + 1]
    cdef SavedChange* change
    cdef Fresher* k
    cdef uint32_t r, n = 0
    cdef int i
    cdef dict groups = {}
    cdef bytearray keys = bytearray((f.top - 1) * sizeof(SavedChange))
    cdef unsigned char[::1] view = keys
    for i in range(GROUPS_):
        if f.groups[i].n > 0:
            _save_prior(&f.groups[i], &prior)
            groups[i] = <bytes>(<char*>&prior)[:sizeof(SavedPrior)]
    for i in range(RISKS + 1):
        risks[i].found, risks[i].feared = f.bin_found[i], f.bin_feared[i]
    for r in range(1, f.top):
        k = &f.keys[r]
        if k.told > 0 or k.reads > 0:
            change = <SavedChange*>&view[n * sizeof(SavedChange)]
            change.hash, change.namespace_ = k.hash, k.ns
            change.evidence = k.evidence
            change.told, change.reads, change.seconds = k.told, k.reads, k.seconds
            n += 1
    _save_prior(&f.all, &prior)
    return {
        "budget": f.p, "outcomes": f.outcomes, "found": f.found, "feared": f.feared,
        # The price in force where that is higher: what is overdrawn may be forgotten, but not made cheaper by it.
        "log_theta": min(14.0, log(f.theta)) if f.theta > exp(f.log_theta) else f.log_theta,
        "pace": (f.refreshes + f.past_refreshes) / (f.p * f.reads + f.past_allowed + 1),
        "all": <bytes>(<char*>&prior)[:sizeof(SavedPrior)], "risks": <bytes>(<char*>risks)[:sizeof(risks)], "groups": groups,
        "keys": bytes(keys[:n * sizeof(SavedChange)]),
    }

cdef void _restore_change(Fresh* f, const SavedChange* change) noexcept:
    """A key without a value: its first load says nothing of change, for nobody knows for how long nobody looked."""
    cdef uint32_t r = fresh_find(f, change.hash)
    cdef Fresher* k
    if r == NIL:
        if f.top > f.most:
            return              # never at the price of records that are there
        r = fresh_take(f, change.hash)
        if r == NIL:
            return
        f.keys[r].ns = <uint16_t>change.namespace_
    k = &f.keys[r]
    k.evidence = change.evidence
    k.told, k.reads, k.seconds = <float>change.told, change.reads, change.seconds

cdef int _restore_fresh(Fresh* f, dict state) except -1:
    """Take over what `_save_fresh` gave. Audits and price belong to a budget; the price, to a cache that has read nothing yet."""
    cdef const unsigned char[::1] view = state["all"]
    cdef Py_ssize_t i
    cdef const SavedRisk* risk
    if state["outcomes"] > 0:
        f.outcomes = state["outcomes"]
        _restore_prior(&f.all, <const SavedPrior*>&view[0])
        view = state["risks"]
        for i in range(RISKS + 1):
            risk = <const SavedRisk*>&view[i * sizeof(SavedRisk)]
            f.bin_found[i], f.bin_feared[i] = risk.found, risk.feared
        for number, prior in state["groups"].items():
            view = prior
            _restore_prior(&f.groups[<int>number % GROUPS_], <const SavedPrior*>&view[0])
        if state["budget"] == f.p:
            f.found, f.feared = state["found"], state["feared"]
            if f.reads == 0:
                f.log_theta = state["log_theta"]
                f.theta = exp(f.log_theta)
                f.past_allowed = 20
                f.past_refreshes = 21 * <double>state["pace"]
    view = state["keys"]
    for i in range(0, view.shape[0], sizeof(SavedChange)):
        _restore_change(f, <const SavedChange*>&view[i])
    return 0
