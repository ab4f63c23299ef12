"""Freshness: for how long may a value be served whose origin may have changed meanwhile?

Works on numbered records, one per key, found by hash; a record outlives the entry it speaks of. The owner says
`fresh_loaded` when a value came in and `fresh_read` for each request that could be answered, and reads `due`, from
which on the value is not to be served. Values are known by a digest only.

Change rates. A key changes as a Poisson process; its rate has a Gamma(a, b) posterior, whose prior belongs to the
namespace and is drawn towards that of all keys (both learned by gradient of the marginal likelihood, AdaGrad). A
reload says whether the value changed within the `elapsed` seconds since it was loaded: unchanged adds `elapsed` to
b, exactly; changed has the likelihood 1 - exp(-rate * elapsed), whose posterior is no Gamma, and is replaced by the
one of equal mean and variance (assumed-density filtering). The chance that the value has changed by age t is then
q(t) = 1 - (b / (b + t))**a, corrected by what came of earlier reloads of about that q. Old evidence fades by a
twentieth with each reload, since change rates drift.

Allocation. p bounds the share of *reads* that are stale, so a read is served while its risk is worth less than the
reload it saves: serve while theta * q(age) is at most g, where g is the mean cost of a read of this key (reloads count
1, stale reads theta) under that same rule. With reads at rate r per change and x = rate * age the optimum solves

    theta * (u + r * (u - x * (1 - u))) = 1,    u = 1 - exp(-x),

the renewal-reward condition of an age replacement policy (Barlow & Proschan, 1965). One theta for all keys is the
Lagrange multiplier of the budget: no reload moved from one key to another would save stale reads.

Calibration. Risks are what the model believes. A read is audited with a probability in proportion to its risk: the
origin is asked whether the value had changed. Weighted by its inverse probability (Horvitz & Thompson, 1952) an audit
is an unbiased sample of the stale reads served, and the ratio of found to believed staleness corrects all risks, the past
ones included. theta follows (corrected risk - p), fast in proportion to the debt. Until there is evidence the ratio is
taken as 1.5 and every read carries one over the number of reloads seen besides, so the start is strict.
"""
from libc.math cimport exp, expm1, log, log1p, sqrt
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from arena cimport NIL
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove, table_reserve,
                    tag_of)

cdef enum:
    GROUPS_ = 4096          # namespaces with a prior of their own
    RISKS = 60              # risk bins, two to the octave

cdef enum Verdict:
    SERVE = 0
    REFRESH = 1             # serve, and reload in the background
    AUDIT = 2               # the same, to learn whether this very read was stale

cdef struct Prior:
    double log_a            # of the shape
    double log_b            # of the seconds
    double g_a              # sums of squared gradients
    double g_b
    uint32_t n

cdef struct Fresher:        # what is known of one key's changes
    int64_t hash
    uint64_t digest
    int64_t loaded          # when the value came in, ns
    int64_t last_read
    int64_t due             # not to be served from here on
    double a                # evidence beyond the prior's
    double b
    double reads            # fading count of reads, and the seconds they spread over
    double seconds
    double slope            # believed risk per second of age; -1 = too large for a straight line, ask the model
    float audit_risk        # of the read under audit
    float audit_weight      # one over the probability of the audit; 0 = none
    float audit_share       # p over that risk: about one for a read of the usual risk
    uint16_t ns
    uint8_t known           # a digest is there
    uint8_t missed          # a request went unanswered since the value came in: the next store is a reload
    uint8_t refreshing      # a reload is under way
    uint8_t used            # since the hand last passed
    uint32_t held           # entries that point here
    float told              # fading count of the reloads behind a and b

cdef struct Fresh:
    double p                # the budget: share of reads
    uint64_t rng
    Prior all
    Prior* groups
    Fresher* keys           # 1 .. top - 1
    uint32_t cap
    uint32_t top
    uint32_t most           # records at the most
    uint32_t hand
    Table index
    bint scaled             # the time scale of the prior is known
    double log_theta
    double theta
    double reads            # that could have been answered
    double risk             # believed stale among them, uncorrected
    double outcomes         # reloads that said whether the value had changed
    double found            # stale reads that audits found, in weights
    double feared           # what was believed of those reads
    double bin_found[RISKS + 1]
    double bin_feared[RISKS + 1]
    uint64_t refreshes      # reloads that freshness asked for, background and foreground
    uint64_t audits
    uint64_t stale          # reads known to have been stale: their own reload says so
    double audited          # unbiased estimate of stale reads served: sum of (stale / probability)
    double past_refreshes   # of the process before a restart, over so many stale reads that were allowed:
    double past_allowed     # how often audits are due until this one's own reloads say so

cdef inline int fresh_init(Fresh* f, double p, uint64_t seed, uint32_t most) noexcept nogil:
    memset(f, 0, sizeof(Fresh))
    f.p = p
    # SplitMix64 (Steele, Lea and Flood, 2014): seeds that are near each other start far apart.
    seed = (seed + 1) * <uint64_t>0x9E3779B97F4A7C15
    seed = (seed ^ (seed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    f.rng = (seed ^ (seed >> 27)) | 1
    f.log_theta = -log(p)
    f.theta = 1 / p
    f.all.log_a = log(0.5)
    f.all.g_a = f.all.g_b = 1e-8
    f.most = most if most > 16 else 16
    f.top = 1
    f.cap = 16
    f.hand = 1
    f.groups = <Prior*>calloc(GROUPS_, sizeof(Prior))
    f.keys = <Fresher*>calloc(f.cap, sizeof(Fresher))
    if f.groups is NULL or f.keys is NULL or table_init(&f.index, 16) < 0:
        return -1
    return 0

cdef inline void fresh_free(Fresh* f) noexcept nogil:
    free(f.groups)
    free(f.keys)
    table_free(&f.index)
    f.groups = NULL
    f.keys = NULL

cdef inline double _fresh_random(Fresh* f) noexcept nogil:
    """0 < u < 1; xorshift64 (Marsaglia, 2003)."""
    f.rng ^= f.rng << 13
    f.rng ^= f.rng >> 7
    f.rng ^= f.rng << 17
    return (<double>(f.rng >> 11) + 0.5) / 9007199254740992.0

# -- records -----------------------------------------------------------------------------

cdef inline uint32_t fresh_find(Fresh* f, int64_t hash) noexcept nogil:
    """The record of a key, or NIL. Keys that share a hash share it: their values look changed, which is strict."""
    cdef uint32_t at = 0
    cdef uint32_t r = table_first(&f.index, tag_of(hash), &at)
    while r != NIL:
        if f.keys[r].hash == hash:
            return r
        r = table_next(&f.index, tag_of(hash), &at)
    return NIL

cdef inline uint32_t fresh_take(Fresh* f, int64_t hash) noexcept nogil:
    """The record of a key, made if need be; NIL when there is no room. Records in use are never taken away."""
    cdef uint32_t r = fresh_find(f, hash), tries, cap
    cdef Fresher* more
    if r != NIL:
        f.keys[r].used = 1
        return r
    if table_reserve(&f.index) < 0:
        return NIL
    if f.top >= f.cap and f.cap <= f.most:
        cap = f.cap * 2 if f.cap * 2 <= f.most + 1 else f.most + 1
        if cap > f.cap:
            more = <Fresher*>realloc(f.keys, <size_t>cap * sizeof(Fresher))
            if more is NULL:
                return NIL
            f.keys = more
            f.cap = cap
    if f.top < f.cap:
        r = f.top
        f.top += 1
    else:
        # CLOCK: the first record that nobody holds or used since the hand last passed.
        r = NIL
        for tries in range(64):
            f.hand = f.hand + 1 if f.hand + 1 < f.top else 1
            if f.keys[f.hand].held:
                continue
            if not f.keys[f.hand].used:
                r = f.hand
                break
            f.keys[f.hand].used = 0
        if r == NIL:
            return NIL
        table_remove(&f.index, f.keys[r].hash, r)
    memset(&f.keys[r], 0, sizeof(Fresher))
    f.keys[r].hash = hash
    f.keys[r].used = 1
    f.keys[r].loaded = INT64_MAX
    table_insert(&f.index, hash, r)
    return r

# -- what is believed --------------------------------------------------------------------

cdef inline Prior* _fresh_prior(Fresh* f, Fresher* k) noexcept nogil:
    cdef Prior* g = &f.groups[k.ns if k.ns < GROUPS_ else 0]
    if g.n == 0:
        g[0] = f.all
        g.g_a = g.g_b = 0.1
        g.n = 1
    return g

cdef inline double _fresh_raw(Fresh* f, Fresher* k, double age) noexcept nogil:
    """The model's own chance that the value has changed by `age` seconds."""
    cdef Prior* g = _fresh_prior(f, k)
    cdef double q = -expm1(-(exp(g.log_a) + k.a) * log1p(age / (exp(g.log_b) + k.b)))
    return 1e-9 if not q > 1e-9 else (1 - 1e-6 if q > 1 - 1e-6 else q)

cdef inline double fresh_risk(Fresh* f, Fresher* k, double age) noexcept nogil:
    """The same, corrected by what came of reloads of about that risk; before the audits' correction."""
    cdef double raw = _fresh_raw(f, k, age), z = -2.8853900817779268 * log(raw), w, y
    cdef int i
    if z > RISKS - 1:
        z = RISKS - 1
    i = <int>z
    w = z - i
    y = 20 + (1 - w) * f.bin_found[i] + w * f.bin_found[i + 1]
    y /= 20 + (1 - w) * f.bin_feared[i] + w * f.bin_feared[i + 1]
    return y * raw if y * raw < 1 else 1

cdef inline double fresh_bias(Fresh* f) noexcept nogil:
    """Stale reads found by audits over those feared."""
    return (5 * 1.5 + f.found) / (5 + f.feared)

cdef inline double fresh_share(double theta, double r) noexcept nogil:
    """The risk at which a read is no longer worth serving, for r reads per change; 2 = never."""
    cdef double lo = 0, hi = 1, x, u
    cdef int i
    if not theta * (1 + r) > 1:
        return 2
    while hi < 60:
        u = -expm1(-hi)
        if theta * (u + r * (u - hi * (1 - u))) >= 1:
            break
        hi *= 2
    for i in range(25):
        x = 0.5 * (lo + hi)
        u = -expm1(-x)
        if theta * (u + r * (u - x * (1 - u))) < 1:
            lo = x
        else:
            hi = x
    return -expm1(-hi)

cdef inline double _fresh_gap(Fresher* k, int64_t now) noexcept nogil:
    """Mean seconds between two reads, the open gap counted; 0 = unknown."""
    if k.reads <= 0:
        return 0
    return (k.seconds + <double>(now - k.last_read) * 1e-9 + 1e-9) / (k.reads + 0.5)

cdef inline void fresh_validity(Fresh* f, Fresher* k, int64_t now) noexcept nogil:
    """Set `due`, the end of validity, by today's belief and price of a stale read."""
    cdef Prior* g
    cdef double gap, rate, most, lo, hi, mid, bias = fresh_bias(f)
    cdef int i
    # Nothing can be said, or too little: reload at each read, but for those of the very same moment.
    k.due = k.loaded + 1
    k.slope = 0
    if not f.scaled or not k.known:
        return
    g = _fresh_prior(f, k)
    rate = (exp(g.log_a) + k.a) / (exp(g.log_b) + k.b)
    gap = _fresh_gap(k, now)
    most = fresh_share(f.theta, 1 / (gap * rate) if gap > 0 else 1.0) - 1 / (f.outcomes + 1)
    lo = 1e-6
    hi = 9e9
    if not bias * fresh_risk(f, k, lo) < most:
        return
    mid = bias * fresh_risk(f, k, hi)
    if mid < most:
        k.due = INT64_MAX
        k.slope = -1
        return
    for i in range(44):
        mid = sqrt(lo * hi)
        if bias * fresh_risk(f, k, mid) < most:
            lo = mid
        else:
            hi = mid
    k.due = k.loaded + <int64_t>(lo * 1e9) + 1
    k.slope = most / bias / lo if most < 0.1 else -1

# -- events ------------------------------------------------------------------------------

cdef inline void _fresh_account(Fresh* f, double risk) noexcept nogil:
    """A read: served at `risk`, or not served (0). The price of a stale read follows the budget.

    What was spent too much or too little so far is made good over the next twentieth of the reads, by aiming
    at between half the budget and 1.3 times.
    """
    cdef double bias = fresh_bias(f), excess, debt
    f.reads += 1
    f.risk += risk
    debt = (bias * f.risk - f.p * f.reads) / (f.p * (2000 + 0.05 * f.reads))
    debt = -0.3 if debt < -0.3 else (2 if debt > 2 else debt)
    excess = bias * risk / f.p - 1 + (0.5 if debt > 0.5 else debt)
    f.log_theta += 3e-4 * (50 if excess > 50 else excess)
    f.log_theta = -2 if f.log_theta < -2 else (14 if f.log_theta > 14 else f.log_theta)
    f.theta = exp(f.log_theta + 1.5 * debt)

cdef inline void _fresh_seen(Fresher* k, int64_t now) noexcept nogil:
    k.reads = k.reads * 0.9 + 1
    k.seconds = k.seconds * 0.9 + <double>(now - k.last_read) * 1e-9
    k.last_read = now

cdef inline double fresh_audits(Fresh* f) noexcept nogil:
    """Audits per unit of risk: a tenth of the reloads wherever the risk is, thrice as many until some have found much."""
    return (0.1 + 4 / (20 + f.feared)) * (<double>f.refreshes + f.past_refreshes) / (f.p * f.reads + f.past_allowed + 1)

cdef inline int fresh_read(Fresh* f, uint32_t r, int64_t now, double load_seconds) noexcept nogil:
    """A request that finds a value whose validity has not ended. A Verdict.

    Early reloads: a key that is read so often that its next read is due long before the validity ends, or
    whose load takes long, is reloaded before the end, at a moment drawn as XFetch draws it (Vattani, Chierichetti
    and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015), so that nobody waits.
    """
    cdef Fresher* k = &f.keys[r]
    cdef double age = <double>(now - k.loaded) * 1e-9, risk, u, chance, ahead, gap, left
    risk = k.slope * age if k.slope >= 0 else (fresh_risk(f, k, age) if age > 0 else 0)
    risk = 0 if risk < 0 else (1 if risk > 1 else risk)
    _fresh_seen(k, now)
    k.used = 1
    _fresh_account(f, risk)
    if k.refreshing:
        return SERVE
    u = risk if risk > 0.25 * f.p else 0.25 * f.p
    chance = fresh_audits(f) * u
    chance = 0.5 if chance > 0.5 else chance
    if k.known and age > 0 and _fresh_random(f) < chance:
        k.audit_risk = <float>risk
        k.audit_weight = <float>(1 / chance)
        k.audit_share = <float>(f.p / u)
        k.refreshing = 1
        f.audits += 1
        return AUDIT
    if k.due == INT64_MAX:
        return SERVE
    left = <double>(k.due - now) * 1e-9
    gap = _fresh_gap(k, now)
    ahead = gap if gap > 0 and gap * 8 <= <double>(k.due - k.loaded) * 1e-9 else 0
    if load_seconds > ahead:
        ahead = load_seconds
    if ahead > 0 and -log(_fresh_random(f)) * ahead >= left:
        k.refreshing = 1
        return REFRESH
    return SERVE

cdef inline void fresh_missed(Fresh* f, uint32_t r, int64_t now) noexcept nogil:
    """A request that went unanswered, of a key with a record (or NIL): the next store is a reload."""
    cdef Fresher* k = &f.keys[r]
    if r != NIL and k.audit_weight > 0 and not k.refreshing:
        # This very read was counted as served, and then sent to the origin for an audit.
        f.risk -= k.audit_risk
        f.risk = 0 if f.risk < 0 else f.risk
        k.missed = 1
        return
    _fresh_account(f, 0)
    if r == NIL or k.loaded == INT64_MAX:
        return
    _fresh_seen(k, now)
    k.missed = 1

cdef inline void fresh_sent(Fresh* f, uint32_t r) noexcept nogil:
    """The read under audit goes unanswered, since whoever asked must reload by himself; `fresh_missed` comes next."""
    f.keys[r].refreshing = 0

cdef inline void fresh_refused(Fresh* f, uint32_t r) noexcept nogil:
    """The reload under way failed or was given up: nothing was learned."""
    f.keys[r].refreshing = 0
    f.keys[r].audit_weight = 0

cdef inline void _fresh_gradient(Prior* g, Fresher* k, double age, bint changed) noexcept nogil:
    cdef double a = exp(g.log_a), b = exp(g.log_b), d = log1p(age / (b + k.b)), z, da, db
    da = -a * d
    db = (a + k.a) * age / ((b + k.b) * (b + k.b + age)) * b
    if changed:
        z = exp(-(a + k.a) * d)
        z = z if z < 0.999999999 else 0.999999999
        da *= -z / (1 - z)
        db *= -z / (1 - z)
    g.g_a += da * da
    g.g_b += db * db
    if g.g_a > 0:
        g.log_a += 0.06 * da / sqrt(g.g_a)
    if g.g_b > 0:
        g.log_b += 0.2 * db / sqrt(g.g_b)
    g.log_a = -4 if g.log_a < -4 else (3 if g.log_a > 3 else g.log_a)
    g.log_b = -20 if g.log_b < -20 else (25 if g.log_b > 25 else g.log_b)

cdef inline void fresh_learn(Fresh* f, Fresher* k, double age, bint changed) noexcept nogil:
    """A reload after `age` seconds found the value changed, or not."""
    cdef Prior* g
    cdef double a, b, z, raw, w, mean, square
    cdef int i
    age = age if age > 1e-6 else 1e-6
    if not f.scaled:
        f.scaled = True
        f.all.log_b = log(age)
    g = _fresh_prior(f, k)
    f.outcomes += 1
    raw = _fresh_raw(f, k, age)
    z = -2.8853900817779268 * log(raw)
    z = RISKS - 1 if z > RISKS - 1 else z
    i = <int>z
    w = z - i
    f.bin_found[i] = f.bin_found[i] * 0.9995 + (1 - w) * changed
    f.bin_feared[i] = f.bin_feared[i] * 0.9995 + (1 - w) * raw
    f.bin_found[i + 1] = f.bin_found[i + 1] * 0.9995 + w * changed
    f.bin_feared[i + 1] = f.bin_feared[i + 1] * 0.9995 + w * raw
    _fresh_gradient(&f.all, k, age, changed)
    _fresh_gradient(g, k, age, changed)
    g.n += g.n < 1000000
    g.log_a += 0.02 * (f.all.log_a - g.log_a)
    g.log_b += 0.02 * (f.all.log_b - g.log_b)
    a = exp(g.log_a) + k.a
    b = exp(g.log_b) + k.b
    if changed:
        z = exp(-a * log1p(age / b))
        z = z if z < 0.999999 else 0.999999
        mean = (a / b - z * a / (b + age)) / (1 - z)
        square = a * (a + 1) * (1 / (b * b) - z / ((b + age) * (b + age))) / (1 - z) - mean * mean
        if square > 0 and mean > 0:
            k.a = mean * mean / square - exp(g.log_a)
            k.b = mean / square - exp(g.log_b)
    else:
        k.b += age
    k.a *= 0.95
    k.b *= 0.95
    k.told = <float>((k.told + 1) * 0.95)
    # The prior moves on; what is left of it must stay a distribution.
    if k.a < -0.9 * exp(g.log_a):
        k.a = -0.9 * exp(g.log_a)
    if k.b < -0.9 * exp(g.log_b):
        k.b = -0.9 * exp(g.log_b)

cdef inline void fresh_loaded(Fresh* f, uint32_t r, int64_t now, uint16_t ns, bint known, uint64_t digest) noexcept nogil:
    """A value came in at `now`. What it teaches depends on why: a reload says whether the last one had changed."""
    cdef Fresher* k = &f.keys[r]
    cdef bint reload = (k.missed or k.refreshing) and k.loaded != INT64_MAX, changed = k.digest != digest
    if reload:
        f.refreshes += 1
    if reload and known and k.known and now >= k.loaded:
        if k.audit_weight > 0:
            f.found += k.audit_share if changed else 0
            f.feared += k.audit_share * k.audit_risk
            f.audited += k.audit_weight if changed else 0
        if k.refreshing and changed:
            f.stale += 1    # the read that asked for this reload got the old value
        fresh_learn(f, k, <double>(now - k.loaded) * 1e-9, changed)
    k.audit_weight = 0
    k.refreshing = 0
    k.missed = 0
    if k.loaded == INT64_MAX:
        k.last_read = now
    k.ns = ns
    k.loaded = now
    k.known = known
    k.digest = digest
    k.used = 1
    fresh_validity(f, k, now)

cdef inline bint fresh_extends(Fresh* f, uint32_t r, int64_t now) noexcept nogil:
    """The validity of a record has ended by `now`: would it be given later today? If so `due` says until when."""
    cdef Fresher* k = &f.keys[r]
    cdef int64_t was = k.due
    if not k.known or k.loaded == INT64_MAX:
        return False
    fresh_validity(f, k, now)
    if k.due > now and k.due - k.loaded > (was - k.loaded) + (was - k.loaded) // 16:
        return True
    k.due = was
    return False

cdef inline bint fresh_sound(Fresh* f) noexcept nogil:
    """Do the records and their index agree, and is every number a number?"""
    cdef uint32_t r
    if f.index.n != f.top - 1 or not (f.theta > 0 and f.risk >= 0 and f.found >= 0 and f.feared >= 0):
        return False
    for r in range(1, f.top):
        if fresh_find(f, f.keys[r].hash) != r or not (f.keys[r].slope >= -1):
            return False
    return True
