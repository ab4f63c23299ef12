"""Freshness: for how long may a value be served whose origin may have changed meanwhile?

Works on numbered records, one per key, found by hash; a record outlives the entry it speaks of. The owner says
`fresh_loaded` when a value came in and `fresh_read` for each request that could be answered, and reads `due`, from
which on the value is not to be served. Values are known by a digest only.

Change rates. A key changes as a Poisson process at a rate of one of RATES classes, or, in one class more, has another
value at almost every load, whatever the time between (rotating answers, time stamps). A reload tells whether the
value changed within the seconds since it was loaded; its likelihood under each class, taken as a logarithm, is added
to the key's evidence, which fades by FADE with each reload, since rates drift. The chances of the classes are the evidence
times the prior: how the keys of a namespace are spread over the classes, as far as that is known, leaning on the
spread of all keys, both learned by online expectation maximisation (Cappe & Moulines, "On-line EM for latent data
models", JRSS B 2009). A class is kept whatever the others say, so a key that flickers does not look safe after a quiet
hour, and no scale of time has to be known beforehand. The chance q(t) that the value has changed by age t is the mean
over the classes, corrected by what came of earlier reloads of about that q.

Common changes. Each group remembers the last change that was not to be expected. Of values that came in before it was found,
some changed with it: how many more than was believed of them alone, beyond chance, is counted in each group,
and over all groups; with that chance the others are suspected from then on. Keys without a namespace have nothing in common.

Allocation. p bounds the share of *reads* that are stale, so a read is served while its risk is worth less than the
reload it saves: serve while theta * q(t) is at most the mean cost of a read of this key (reloads count 1, stale reads theta) under
that same rule. With reads at rate r that is, for any q that never falls,

    theta * (q(t) + r * t * (q(t) - mean of q up to t)) < 1,

the renewal-reward condition of an age replacement policy (Barlow & Proschan, 1965). One theta for all keys is the
Lagrange multiplier of the budget: no reload moved from one key to another would save stale reads. `due` is where the condition
ends, by the price and the pace of reads of the moment in which it is set. A read looks again after 1, 2, 4 ... reads
of the value, when the price has moved by a tenth, and when a common change is suspected: a value that came in on better terms is reloaded then.

Books. What the budget is compared with is what reloads have told. A value found unchanged had no stale reads; in one found
changed after t seconds a read at age s was stale with the chance q(s) / q(t), or, as far as it changed with others, by
where in the time of its reads that must have been. Reads of which no reload has told count by their believed risk times the
fading ratio of told to believed. A read is audited with a probability in proportion to its risk: the origin is asked at once.
Weighted by their inverse probabilities (Horvitz & Thompson, 1952) audits are an unbiased sample of the stale reads, free of
every assumption above, but noisy: books and audits are weighed by their variances, the books being taken to be wrong by DOUBT.
theta follows (believed risk - p), fast in proportion to the debt: stale reads so far, half their root for safety, less
p times the reads.
"""
from libc.math cimport exp, exp2, expm1, log, log2, pow, sqrt
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from arena cimport NIL
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove, table_reserve,
                    table_tag)

cdef enum:
    GROUPS_ = 4096          # namespaces with a prior of their own
    RISKS = 60              # risk bins, two to the octave
    RATES = 22              # classes of change rates, two octaves apart
    CLASSES = 23            # and one more: keys whose value is another at almost every load
    STEPS_NOUGHT = 80       # where the slowest class is after a second
    STEPS = 400             # of tables over rate * age, four to the octave

cdef extern from *:
    """
    #define FRESH_LEAN 10.0         /* keys of all that a namespace's prior leans on */
    #define FRESH_ALWAYS 0.8        /* chance of a change at each load, in the last class */
    #define FRESH_FADE 0.97         /* of evidence, with each reload */
    #define FRESH_AUDITED 0.03      /* audits over reloads */
    #define FRESH_DOUBT 0.15        /* share by which the books may be wrong in the long run */
    #define FRESH_AIM 0.96          /* share of the budget that is aimed at */
    #define FRESH_LEAST 1e-6        /* seconds */
    #define FRESH_MOST 9e9
    """
    double LEAN "FRESH_LEAN"
    double ALWAYS "FRESH_ALWAYS"
    double FADE "FRESH_FADE"
    double AUDITED "FRESH_AUDITED"
    double DOUBT "FRESH_DOUBT"
    double AIM "FRESH_AIM"
    double LEAST_AGE "FRESH_LEAST"
    double MOST_AGE "FRESH_MOST"

cdef enum Verdict:
    SERVE = 0
    REFRESH = 1             # serve, and reload in the background
    AUDIT = 2               # the same, to learn whether this very read was stale

cdef struct Prior:          # how the rates of a group of keys are spread over the classes
    double share[CLASSES]
    double n                # keys behind it, their later reloads in part; fading
    double shaken           # fading count of reloads of values from before a change of another key was found
    double moved            # how many of them had changed
    double unmoved          # how many would have without that, as was believed
    int64_t found_at        # when the last change was found that was not to be expected
    uint32_t found_in       # of which record,
    int64_t found_from      # and since when it may have been so
    int64_t calm_at         # when a value was last found unchanged

cdef struct Fresher:        # what is known of one key's changes
    int64_t hash
    uint64_t digest
    int64_t loaded          # when the value came in, ns
    int64_t last_read
    int64_t due             # not to be served from here on
    float evidence[CLASSES] # fading log-likelihood of each class, the greatest 0
    double owed             # risk of the reads served since the value came in
    double served           # how many they were
    double ages             # and the seconds of their ages, summed
    double reads            # fading count of reads, and the seconds they spread over
    double seconds
    float knots[3]          # believed risk at age nought, an eighth of the validity, all of it
    float theta             # the price by which `due` was set
    float shock             # and the chance that the value changed together with another of its group
    float audit_risk        # of the read under audit
    float audit_weight      # one over the probability of the audit; 0 = none
    uint16_t ns
    uint8_t known           # a digest is there
    uint8_t missed          # a request went unanswered since the value came in: the next store is a reload
    uint8_t refreshing      # a reload is under way
    uint8_t used            # since the hand last passed
    uint8_t held            # an entry's validity is here
    float told              # fading count of the reloads behind the evidence

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
    double changed[STEPS]   # 1 - exp(-x)
    double stale_part[STEPS]    # mean of that from 0 to x
    double log_theta
    double theta
    double reads            # that could have been answered
    double risk             # believed stale among them, uncorrected
    double outcomes         # reloads that said whether the value had changed
    double spent            # stale reads served, as far as reloads have told
    double settled          # what was believed of those reads before
    double found            # the same two, fading
    double feared
    double bin_found[RISKS + 1]
    double bin_feared[RISKS + 1]
    uint64_t refreshes      # reloads that freshness asked for, background and foreground
    uint64_t audits
    uint64_t stale          # reads known to have been stale: their own reload says so
    double audited          # unbiased estimate of stale reads served: sum of (stale / probability)
    double audit_noise      # variance of that, believed
    double past_refreshes   # of the process before a restart, over so many stale reads that were allowed:
    double past_allowed     # how often audits are due until this one's own reloads say so

cdef inline int fresh_init(Fresh* f, double p, uint64_t seed, uint32_t most) noexcept nogil:
    cdef int i
    cdef double x
    memset(f, 0, sizeof(Fresh))
    f.p = p
    # SplitMix64 (Steele, Lea and Flood, 2014): seeds that are near each other start far apart.
    seed = (seed + 1) * <uint64_t>0x9E3779B97F4A7C15
    seed = (seed ^ (seed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    f.rng = (seed ^ (seed >> 27)) | 1
    f.log_theta = -log(p)
    f.theta = 1 / p
    for i in range(CLASSES):
        f.all.share[i] = 1.0 / CLASSES
    for i in range(STEPS):
        x = exp2((i - STEPS_NOUGHT - 128) / 4.0)
        f.changed[i] = -expm1(-x)
        f.stale_part[i] = 1 + expm1(-x) / x if x > 1e-5 else x / 2
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
    """The record of a key, or NIL. Keys that share a hash have it in turn: their values look changed, which is strict."""
    cdef uint32_t at = 0
    cdef uint32_t r = table_first(&f.index, table_tag(&f.index, hash), &at)
    while r != NIL:
        if f.keys[r].hash == hash:
            return r
        r = table_next(&f.index, table_tag(&f.index, hash), &at)
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

cdef inline Prior* _fresh_group(Fresh* f, Fresher* k) noexcept nogil:
    return &f.groups[k.ns if k.ns < GROUPS_ else 0]

cdef inline void _fresh_posterior(Fresh* f, Fresher* k, double* w) noexcept nogil:
    """The chances of the classes, given what is known of the key and of its namespace."""
    cdef Prior* g = _fresh_group(f, k)
    cdef double total = 0
    cdef int i
    for i in range(CLASSES):
        w[i] = (g.n * g.share[i] + LEAN * f.all.share[i]) * exp(k.evidence[i])
        total += w[i]
    for i in range(CLASSES):
        w[i] /= total

cdef inline double _fresh_look_up(const double* table, const double* w, double age, double always) noexcept nogil:
    """Mean over the classes of a table of rate * age."""
    cdef double z = 4 * log2(age) + STEPS_NOUGHT, part, y = w[RATES] * always
    cdef int i, j = <int>z
    part = z - j
    for i in range(RATES):
        y += w[i] * (table[j] + part * (table[j + 1] - table[j]))
        j += 8
    return y

cdef inline double _fresh_age(double age) noexcept nogil:
    return LEAST_AGE if age < LEAST_AGE else (MOST_AGE if age > MOST_AGE else age)

cdef inline double _fresh_raw(Fresh* f, const double* w, double age) noexcept nogil:
    """The model's own chance that the value has changed by `age` seconds."""
    cdef double q = _fresh_look_up(f.changed, w, _fresh_age(age), ALWAYS)
    return 1e-9 if not q > 1e-9 else (1 - 1e-6 if q > 1 - 1e-6 else q)

cdef inline double _fresh_corrected(Fresh* f, double raw) noexcept nogil:
    """A risk, corrected by what came of reloads of about that risk."""
    cdef double z = -2.8853900817779268 * log(raw), w, y
    cdef int i
    if z > RISKS - 1:
        z = RISKS - 1
    i = <int>z
    w = z - i
    y = 20 + (1 - w) * f.bin_found[i] + w * f.bin_found[i + 1]
    y /= 20 + (1 - w) * f.bin_feared[i] + w * f.bin_feared[i + 1]
    return y * raw if y * raw < 1 else 1

cdef inline double _fresh_common(Fresh* f, Prior* g) noexcept nogil:
    """How likely a value of a group changes when another one does, beyond what is believed of it alone."""
    cdef double all = f.all.moved - f.all.unmoved - 1.5 * sqrt(f.all.unmoved + 1), s
    if g is &f.groups[0]:
        return 0        # what has no namespace has nothing in common
    all = all / (f.all.shaken + 20) if all > 0 else 0
    # Beyond chance.
    s = (g.moved - g.unmoved - 1.5 * sqrt(g.unmoved + 1) + 5 * all) / (g.shaken + 5)
    return 0 if s < 0 else (0.99 if s > 0.99 else s)

cdef inline double _fresh_shock(Fresh* f, uint32_t r) noexcept nogil:
    """The chance that a value changed with another of its group, of which that was found since the value came in."""
    cdef Prior* g = _fresh_group(f, &f.keys[r])
    return _fresh_common(f, g) if g.found_at > f.keys[r].loaded and g.found_in != r else 0

cdef inline double fresh_risk(Fresh* f, Fresher* k, double age) noexcept nogil:
    """The chance that the value has changed by `age` seconds."""
    cdef double w[CLASSES]
    _fresh_posterior(f, k, w)
    return k.shock + (1 - k.shock) * _fresh_corrected(f, _fresh_raw(f, w, age))

cdef inline double fresh_bias(Fresh* f) noexcept nogil:
    """Stale reads that reloads told of, over those feared."""
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

cdef inline bint _fresh_worth(Fresh* f, const double* w, double age, double theta, double reads, double shock) noexcept nogil:
    """Is a read at `age` still worth serving, where there are so many reads in that time?"""
    cdef double q = _fresh_look_up(f.changed, w, age, ALWAYS), mean = _fresh_look_up(f.stale_part, w, age, ALWAYS)
    cdef double raw = 1e-9 if not q > 1e-9 else (1 - 1e-6 if q > 1 - 1e-6 else q)
    cdef double believed = _fresh_corrected(f, raw) / raw
    # Who changed with others has done so already: a risk of today, on top of that of all the age.
    return theta * (believed * (q + reads * (q - mean)) + shock * (1 - q) * (1 + reads)) < 1

cdef inline double _fresh_pace(Fresher* k, double age, int64_t now, bint silent) noexcept nogil:
    """Reads in `age` seconds, at the pace of today; silent: at that which it will be if the next one comes at that age."""
    cdef double open_ = <double>(now - k.last_read) * 1e-9, later = age + <double>(k.loaded - k.last_read) * 1e-9
    if silent and later > open_:
        open_ = later
    return (k.reads + 0.5) * age / (k.seconds + open_ + 1e-9) if k.reads > 0 or silent else 0

cdef inline void fresh_validity(Fresh* f, uint32_t r, int64_t now, bint silent) noexcept nogil:
    """Set `due`, the end of validity, by today's belief and price of a stale read.

    silent: as for a value that nobody has asked for up to then.
    """
    cdef Fresher* k = &f.keys[r]
    cdef double w[CLASSES]
    cdef double lo, hi, mid, bias = fresh_bias(f), theta
    cdef int i
    # Nothing can be said: reload at each read, but for those of the very same moment.
    k.due = k.loaded + 1
    k.knots[0] = k.knots[1] = k.knots[2] = 0
    k.theta = <float>f.theta
    k.shock = <float>_fresh_shock(f, r)
    if not k.known:
        return
    _fresh_posterior(f, k, w)
    theta = f.theta * bias / (1 - 1 / (f.outcomes + 1.001))
    lo = LEAST_AGE
    hi = MOST_AGE
    if not _fresh_worth(f, w, lo, theta, _fresh_pace(k, lo, now, silent), k.shock):
        return
    if _fresh_worth(f, w, hi, theta, _fresh_pace(k, hi, now, silent), k.shock):
        k.due = INT64_MAX
        lo = MOST_AGE
    else:
        for i in range(20):
            mid = sqrt(lo * hi)
            if _fresh_worth(f, w, mid, theta, _fresh_pace(k, mid, now, silent), k.shock):
                lo = mid
            else:
                hi = mid
        k.due = k.loaded + <int64_t>(lo * 1e9) + 1
    k.knots[0] = <float>(k.shock + (1 - k.shock) * _fresh_corrected(f, _fresh_raw(f, w, LEAST_AGE)))
    k.knots[1] = <float>(k.shock + (1 - k.shock) * _fresh_corrected(f, _fresh_raw(f, w, lo / 8)))
    k.knots[2] = <float>(k.shock + (1 - k.shock) * _fresh_corrected(f, _fresh_raw(f, w, lo)))

cdef inline double _fresh_near(Fresh* f, Fresher* k, int64_t now) noexcept nogil:
    """The risk of a read now, between two knots."""
    cdef double age = <double>(now - k.loaded) * 1e-9, part
    if age <= 0:
        return 0
    if k.due == INT64_MAX:
        return fresh_risk(f, k, age)
    part = age * 1e9 / <double>(k.due - k.loaded)
    if part < 0.125:
        return k.knots[0] + (k.knots[1] - k.knots[0]) * part * 8
    return k.knots[1] + (k.knots[2] - k.knots[1]) * (part - 0.125) / 0.875

# -- events ------------------------------------------------------------------------------

cdef inline double fresh_stale(Fresh* f) noexcept nogil:
    """Stale reads served so far: what reloads have told, what is believed where none has, and what audits say of both."""
    cdef double books = f.spent + fresh_bias(f) * (f.risk - f.settled), doubt
    # More than the books say is the worse mistake, and believed sooner.
    doubt = books * (2 * DOUBT if f.audited > books else DOUBT)
    return books + (f.audited - books) * doubt * doubt / (doubt * doubt + fresh_bias(f) * f.audit_noise + 1)

cdef inline void _fresh_account(Fresh* f, double risk) noexcept nogil:
    """A read: served at `risk`, or not served (0). The price of a stale read follows the budget.

    What was spent too much or too little so far is made good over the next twentieth of the reads, by aiming
    at between half the budget and 1.3 times.
    """
    cdef double bias = fresh_bias(f), aim = AIM * f.p, excess, debt, stale
    f.reads += 1
    f.risk += risk
    stale = fresh_stale(f)
    stale = stale if stale > 0 else 0
    debt = (stale + 0.5 * sqrt(stale) - aim * f.reads) / (aim * (2000 + 0.05 * f.reads))
    debt = -0.3 if debt < -0.3 else (2 if debt > 2 else debt)
    excess = bias * risk / aim - 1 + (0.5 if debt > 0.5 else debt)
    f.log_theta += 3e-4 * (50 if excess > 50 else excess)
    f.log_theta = -2 if f.log_theta < -2 else (14 if f.log_theta > 14 else f.log_theta)
    f.theta = exp(f.log_theta + 1.5 * debt)

cdef inline void _fresh_seen(Fresher* k, int64_t now) noexcept nogil:
    k.reads = k.reads * 0.9 + 1
    k.seconds = k.seconds * 0.9 + <double>(now - k.last_read) * 1e-9
    k.last_read = now

cdef inline double fresh_audits(Fresh* f) noexcept nogil:
    """Audits per unit of risk: so many of a hundred reloads wherever the risk is, and more until some have told much."""
    cdef double pace = (<double>f.refreshes + f.past_refreshes) / (f.p * f.reads + f.past_allowed + 1)
    return (AUDITED + 1 / (20 + f.settled)) * pace + 10 / (20 + f.settled)

cdef inline int fresh_read(Fresh* f, uint32_t r, int64_t now, double load_seconds) noexcept nogil:
    """A request that finds a value whose validity has not ended. A Verdict.

    Early reloads: a key that is read so often that its next read is due long before the validity ends, or
    whose load takes long, is reloaded before the end, at a moment drawn as XFetch draws it (Vattani, Chierichetti
    and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015), so that nobody waits.
    """
    cdef Fresher* k = &f.keys[r]
    cdef double risk = _fresh_near(f, k, now), u, chance, ahead, gap, left
    risk = 0 if risk < 0 else (1 if risk > 1 else risk)
    k.owed += risk
    k.served += 1
    k.ages += <double>(now - k.loaded) * 1e-9
    _fresh_seen(k, now)
    k.used = 1
    _fresh_account(f, risk)
    if k.refreshing:
        return SERVE
    u = risk if risk > 0.5 * f.p else 0.5 * f.p
    chance = fresh_audits(f) * u
    chance = 0.5 if chance > 0.5 else chance
    f.audit_noise += risk * (1 / chance - 1)
    if k.known and now > k.loaded and _fresh_random(f) < chance:
        k.audit_risk = <float>risk
        k.audit_weight = <float>(1 / chance)
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

cdef inline void fresh_review(Fresh* f, uint32_t r, int64_t now) noexcept nogil:
    """A request finds a value: how long is it valid by today's price, and at the pace of reads that shows by now?

    Worked out anew when the price has moved, and after 1, 2, 4 ... reads of the value.
    """
    cdef Fresher* k = &f.keys[r]
    cdef int64_t n = <int64_t>k.served + 1, was = k.due
    if k.known and (n & (n - 1) == 0 or not 0.9 * f.theta < k.theta or not 1.1 * f.theta > k.theta
                    or _fresh_shock(f, r) > 1.1 * k.shock + 1e-6):
        fresh_validity(f, r, now, False)
        if k.due <= now < was:
            k.due = now         # valid until this very request

cdef inline void fresh_missed(Fresh* f, uint32_t r, int64_t now) noexcept nogil:
    """A request that went unanswered, of a key with a record (or NIL): the next store is a reload."""
    cdef Fresher* k = &f.keys[r]
    if r != NIL and k.audit_weight > 0 and not k.refreshing and not k.missed:
        # This very read was counted as served, and then sent to the origin for an audit.
        f.risk -= k.audit_risk
        f.risk = 0 if f.risk < 0 else f.risk
        k.owed -= k.audit_risk
        k.served -= 1
        k.ages -= <double>(now - k.loaded) * 1e-9
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
    f.keys[r].audit_weight -= 1     # it stands for the others that were served, and no more for itself

cdef inline void fresh_refused(Fresh* f, uint32_t r) noexcept nogil:
    """The reload under way failed or was given up: nothing was learned."""
    f.keys[r].refreshing = 0
    f.keys[r].audit_weight = 0

cdef inline void _fresh_spread(Prior* g, const double* w, double weight) noexcept nogil:
    """A key of these chances was looked at: a step of online expectation maximisation (Cappe and Moulines, 2009)."""
    cdef double step = weight * pow(1 + g.n, -0.75)
    cdef int i
    step = step if step < 1 else 1
    for i in range(CLASSES):
        g.share[i] += step * (w[i] - g.share[i])
    g.n += weight
    g.n = g.n if g.n < 1000 else 1000

cdef inline double _fresh_since(int64_t begun, int64_t found, int64_t loaded) noexcept nogil:
    """The share of reads, even from `loaded` to `found`, that came after a moment somewhere between `begun` and `found`."""
    return 0.5 * <double>(found - begun) / <double>(found - loaded) if found > loaded else 0

cdef inline double fresh_learn(Fresh* f, uint32_t r, int64_t now, bint changed) noexcept nogil:
    """A reload after `age` seconds found the value changed, or not. How many reads since the load that makes stale."""
    cdef double w[CLASSES]
    cdef Fresher* k = &f.keys[r]
    cdef double raw, z, y, x, top = -1e9, age = _fresh_age(<double>(now - k.loaded) * 1e-9), shock = _fresh_shock(f, r)
    cdef int64_t begun = k.loaded
    cdef int i
    cdef Prior* g = _fresh_group(f, k)
    _fresh_posterior(f, k, w)
    raw = _fresh_raw(f, w, age)
    # Changed by now, and when is not known: each read was stale with the chance that it was by then.
    y = _fresh_raw(f, w, k.ages / k.served) / raw if changed and k.served > 0 else 0
    y = y if y < 1 else 1
    x = _fresh_corrected(f, raw)
    if g.found_at > k.loaded and g.found_in != r:
        begun = g.found_from if g.found_from > k.loaded else k.loaded
        y += shock / (shock + (1 - shock) * x) * (_fresh_since(begun, g.found_at, k.loaded) * changed - y)
        g.shaken = 0.98 * g.shaken + 1
        g.moved = 0.98 * g.moved + changed
        g.unmoved = 0.98 * g.unmoved + x
        f.all.shaken = 0.998 * f.all.shaken + 1
        f.all.moved = 0.998 * f.all.moved + changed
        f.all.unmoved = 0.998 * f.all.unmoved + x
    elif changed:
        begun = g.calm_at if g.calm_at > k.loaded else k.loaded
        y += _fresh_common(f, g) * (_fresh_since(begun, now, k.loaded) - y)
    if changed and x < 0.5:
        g.found_at = now
        g.found_in = r
        g.found_from = begun
    elif not changed:
        g.calm_at = now
    f.outcomes += 1
    z = -2.8853900817779268 * log(raw)
    z = RISKS - 1 if z > RISKS - 1 else z
    i = <int>z
    x = z - i
    f.bin_found[i] = f.bin_found[i] * 0.9995 + (1 - x) * changed
    f.bin_feared[i] = f.bin_feared[i] * 0.9995 + (1 - x) * raw
    f.bin_found[i + 1] = f.bin_found[i + 1] * 0.9995 + x * changed
    f.bin_feared[i + 1] = f.bin_feared[i + 1] * 0.9995 + x * raw
    for i in range(CLASSES):
        x = exp2(2.0 * (i - 16)) * age
        if i == RATES:
            x = log(ALWAYS if changed else 1 - ALWAYS)
        elif changed:
            x = log(-expm1(-x))
        else:
            x = -x
        k.evidence[i] = <float>(FADE * k.evidence[i] + x)
        top = k.evidence[i] if k.evidence[i] > top else top
    for i in range(CLASSES):
        k.evidence[i] = <float>(k.evidence[i] - top if k.evidence[i] - top > -80 else -80)
    _fresh_posterior(f, k, w)
    if g.n == 0:
        g.share = f.all.share
    x = 1 / (1 + k.told)
    _fresh_spread(&f.all, w, x)
    _fresh_spread(g, w, x)
    k.told = <float>((k.told + 1) * FADE)
    return y * k.served

cdef inline void _fresh_settle(Fresh* f, Fresher* k, double stale) noexcept nogil:
    """A reload told how many of the reads since the last one were stale, about."""
    cdef double keep = 1 - k.owed / 200
    keep = keep if keep > 0 else 0
    f.spent += stale
    f.settled += k.owed
    f.found = f.found * keep + stale
    f.feared = f.feared * keep + k.owed

cdef inline void fresh_loaded(Fresh* f, uint32_t r, int64_t now, uint16_t ns, bint known, uint64_t digest) noexcept nogil:
    """A value came in at `now`. What it teaches depends on why: a reload says whether the last one had changed."""
    cdef Fresher* k = &f.keys[r]
    cdef bint reload = (k.missed or k.refreshing) and k.loaded != INT64_MAX, changed = k.digest != digest
    cdef double stale
    if reload:
        f.refreshes += 1
    if reload and known and k.known and now >= k.loaded:
        if k.audit_weight > 0:
            f.audited += k.audit_weight if changed else 0
        if k.refreshing and changed:
            f.stale += 1    # the read that asked for this reload got the old value
        stale = fresh_learn(f, r, now, changed)
        _fresh_settle(f, k, stale)
    k.owed = k.served = k.ages = 0
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
    fresh_validity(f, r, now, False)

cdef inline bint fresh_extends(Fresh* f, uint32_t r, int64_t now) noexcept nogil:
    """The validity of a record has ended by `now`: would it be given later today? If so `due` says until when."""
    cdef Fresher* k = &f.keys[r]
    cdef int64_t was = k.due
    if not k.known or k.loaded == INT64_MAX:
        return False
    fresh_validity(f, r, now, True)
    if k.due > now and k.due - k.loaded > (was - k.loaded) + (was - k.loaded) // 16:
        return True
    k.due = was
    return False

cdef inline bint fresh_sound(Fresh* f) noexcept nogil:
    """Do the records and their index agree, and is every number a number?"""
    cdef uint32_t r
    cdef int i
    if f.index.n != f.top - 1 or not (f.theta > 0 and f.risk >= 0 and f.found >= 0 and f.feared >= 0):
        return False
    for r in range(1, f.top):
        if fresh_find(f, f.keys[r].hash) != r or not (f.keys[r].owed >= -1e-6):
            return False
        for i in range(CLASSES):
            if not -81 < f.keys[r].evidence[i] <= 0:
                return False
    return True
