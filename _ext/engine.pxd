"""The learner's core: follows keys from access to access, and turns what happens into labels.

Each tracked key has one open wait: it starts at an access and ends at the next request, write or
removal, or when it has lasted twice the key's break-even time; then what is known of the key goes to the attic (attic.pxd),
from where its next access takes it back. As a wait passes from bin to bin,
hazard cells learn, every expert is charged the rent it would have paid, and the model-based
experts decide anew whether they would still hold (DESIGN section 3). At its end each expert that had let go
pays the miss. So every label scores every expert, and costs are charged as they accrue.

The engine sees hashes and numbers only. It neither holds nor removes entries: it says what the
mixture would do (`engine_verdict`), and the expiry asks.
"""
from libc.math cimport cos, exp2, isfinite, log2, sin
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset
from arena cimport Arena, NIL, arena_free, arena_give, arena_init, arena_reserve, arena_take
from attic cimport (Attic, Memoir, attic_drop, attic_find, attic_free, attic_init, attic_put, memoir, memoir_breakeven, memoir_cells,
                    memoir_over, memoir_record)
from bins cimport NB, bin_of, edge
from flat cimport FEATURES, LEAVES, Line, Rule, Tree, line_hazards, rule_free, rule_seconds, tree_leaf, within_reach
from hazard cimport (Cell, Chain, HAZARDS, KeyCell, Outlook, WINDOW, cell_learn, key_learn, key_rebase, outlook)
from hedge cimport EXPERTS, LEADER, Hedge, hedge_close, hedge_forget, hedge_init
from record cimport Record, count_bucket, count_up, record_start, record_touch
from stack cimport (BUCKETS, Example, ROWS, SIDES, SPAN, Side, Stack, TERMS, side_learn, stage_of, stack_init, stack_mix,
                    stack_terms)
from ring cimport APP, EVICTED, MISSED, REMOVED, STORED, Touch
from table cimport (Table, table_first, table_free, table_init, table_insert, table_next, table_remove,
                    table_reserve, table_tag)
from wheel cimport Wheel, wheel_cancel, wheel_free, wheel_init, wheel_pop, wheel_reached, wheel_reserve, wheel_schedule

cdef enum:
    # Experts by number. The Python side names them in learn/experts.py.
    STATIC = 0              # 22 fixed TTLs: 0, then two to the octave, the same for every entry
    STATICS = 22
    MULTIPLE = 22           # 11 multiples of the entry's own break-even time: 1, 2**-1/2 ... 2**-5
    MULTIPLES = 11
    HAZARD = 33
    STACKED = 42            # the last of the hazards
    USER = 43
    USERS = 4
    MAJORITY = LEADER       # 47: holds while experts with more than half of the weight hold
    COUNTS = 5              # count buckets
    GAPS = NB + 1
    TURNS = 3               # gap 2 against gap 1: shorter, alike, longer
    NAMESPACES = 4096       # more share number 0
    CODES = 1024            # categories of one feature, by hash
    BELOW = 18              # bins below break-even that are looked at one by one
    LABELS = 4096
    ASKS = 4096
    EXAMPLES = 4096         # of the stack, not fetched yet
    NO_ROW = 0xFFFF
    MEMOIRS = 4             # keys remembered in the attic, at most, for each one that may be followed

cdef struct Label:
    float x[FEATURES]
    float breakeven         # seconds
    float seen              # seconds from the access to what ended the wait
    uint8_t base
    uint8_t last            # the bin in which it ended
    uint8_t top
    uint8_t y               # 0 nothing came, 1 a request, 2 a write

cdef struct Coded:
    float mean              # share of requests within break-even
    float n

cdef struct Tracker:
    Record rec
    double breakeven        # ns
    double scale            # this key's miss cost over the average one
    int64_t window          # protected window, ns
    uint64_t holding        # bit e: expert e would still hold
    uint64_t at_first       # the same when the wait began
    uint64_t salt           # of this wait: the mixture's threshold
    float back              # predicted probability of a request within the window
    float ratio             # rent saved over risk run
    float size
    float cost
    float user[USERS]       # TTLs of the user's models, ns; negative = hold
    float line[WINDOW]
    float stacked[WINDOW]
    float decayed[2]        # counts of accesses that fade: half-lives of one and of eight break-even times
    uint16_t side[SIDES]    # rows of this access's side contexts, or NO_ROW
    float x[FEATURES]
    Touch touch
    KeyCell* key
    uint32_t serial         # of the wait
    uint32_t stacked_by     # version of the weights behind `stacked`; 0 = none
    float at_once           # `tempted` when the wait began
    float tempted           # the largest ratio at which the mixture would have let go within the window
    uint8_t has_line
    uint8_t has_leaf
    uint8_t leaf
    uint8_t base
    uint8_t bin
    uint8_t top
    uint8_t open_           # a wait is running
    uint8_t missed          # a request missed; the value that comes next belongs to it
    uint8_t hold            # the mixture's verdict
    uint8_t coded           # this wait has been counted in the codes

cdef struct Ask:
    uint32_t tracker
    uint32_t wait           # of its salt: a slot that was given anew meanwhile is another wait

cdef enum:
    UNFOLLOWED = -0x7FFFFFFFFFFFFFFF    # in place of a time: the engine has stopped following the key

cdef struct Poke:
    int64_t hash
    int64_t at              # from when on the mixture would let go, or UNFOLLOWED

cdef struct NamespaceState:
    Cell* cells             # NB
    Hedge* hedges           # COUNTS, once there is enough traffic
    double labels
    uint64_t name           # of its label, the same in every process; 0: only the number is known

cdef struct Engine:
    double price            # cost per unit of size per ns: the stated one, or the shadow price where that is higher
    double stated           # what the user stated, 0 = nothing: windows are promised at it, whatever the pressure
    double window_ns        # < 0: a quarter of the break-even time
    double alpha
    double miss_cost        # where nothing else is known
    double mean_cost
    double mean_log         # running mean of log2(break-even)
    double log_n
    int anchor              # bin of the first static TTL
    uint64_t salt
    uint64_t sample         # hashes at or above are not tracked
    uint32_t capacity       # trackers at most
    Attic attic             # keys whose wait has run out
    Arena arena
    Table index
    Tracker* trackers
    uint32_t trackers_cap
    Wheel wheel
    Cell* everyone
    Cell* habit             # [COUNTS][GAPS][NB]
    Cell* habit2            # [COUNTS][GAPS][TURNS][NB]
    Cell* leaves            # [LEAVES][NB]
    NamespaceState* namespaces
    Coded* codes            # [APP + 1][CODES]
    double code_mean
    double code_n
    Line* line
    Tree* tree
    Rule* rules[USERS]      # the user's models that could be compiled; the others are asked
    Stack stack
    Side* sides             # [ROWS][SPAN]
    uint64_t side_names[APP]    # of the application's features, the same in every process; else their places
    bint stacks             # does the stack take part?
    Example* examples
    uint32_t example_head
    uint32_t example_tail
    uint32_t example_every
    double prior[EXPERTS]
    Hedge everywhere
    Hedge counts[COUNTS]
    double keep             # discount of one round
    double limit            # n at which cells stop slowing down
    int key_limit
    Label* labels
    uint32_t label_head
    uint32_t label_tail
    uint32_t label_every
    uint32_t label_tick
    Ask* asks
    uint32_t ask_head
    uint32_t ask_tail
    bint wants_asks
    Poke* pokes             # verdicts that whoever holds the entries has not looked at yet
    uint32_t n_pokes
    uint32_t pokes_cap
    uint64_t n_labels
    uint64_t n_waits
    uint64_t n_outside      # waits on which a published model had nothing to say: out of its range
    double excess[256]      # per closed round: majority's loss less the best static's, a label
    uint32_t excess_head
    uint32_t excess_tail
    float score_ratio       # `tempted` of the last protected request: for the guard's ladder
    uint16_t score_ns       # its namespace: for the ladder of its bank
    bint score_ready
    uint32_t score_again    # protected requests that came at once, and were told together
    float score_at_once     # their `tempted`
    double share            # of the weight that held on in the latest verdict
    int only                # >= 0: follow this expert alone (tests and ablations)

cdef inline uint64_t mix64(uint64_t z) noexcept nogil:
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)

cdef inline void engine_prior(Engine* g, uint64_t mask) noexcept nogil:
    """Which experts take part: the static ones always, hazards and users by bit of `mask`."""
    cdef int e
    cdef double total = 0
    for e in range(EXPERTS):
        g.prior[e] = 0
        if e < STATICS:
            g.prior[e] = 0.2 / STATICS
        elif e < HAZARD:
            # Before anything is known, near break-even: two-competitive whatever comes.
            g.prior[e] = 0.6 * 0.5 ** (e - MULTIPLE + 1)
        elif e == STACKED:
            # More than the others: it starts as the chain's own end, and is taught away from it.
            g.prior[e] = 0.5 if (mask >> e) & 1 else 0.0
            g.stacks = (mask >> e) & 1
        elif e < USER + USERS:
            g.prior[e] = 0.05 if (mask >> e) & 1 else 0.0
        elif e == MAJORITY:
            g.prior[e] = 9.0 * total if (mask >> e) & 1 else 0.0    # of the whole, nine tenths
        total += g.prior[e]
    for e in range(EXPERTS):
        g.prior[e] /= total
    hedge_init(&g.everywhere, g.prior)
    for e in range(COUNTS):
        hedge_init(&g.counts[e], g.prior)

cdef inline int engine_init(Engine* g, uint32_t capacity, int64_t now, uint64_t seed) noexcept nogil:
    cdef int i
    memset(g, 0, sizeof(Engine))
    for i in range(APP):
        g.side_names[i] = i
    g.window_ns = -1
    g.alpha = 0.01
    g.miss_cost = 1
    g.anchor = -1
    g.salt = mix64(seed + <uint64_t>0x9E3779B97F4A7C15)
    g.sample = <uint64_t>0xFFFFFFFFFFFFFFFF
    g.capacity = capacity
    g.keep = 0.5 ** (32.0 / 20000)
    g.limit = 2000
    g.key_limit = 40
    g.label_every = 1
    g.example_every = 1
    stack_init(&g.stack)
    g.only = -1
    wheel_init(&g.wheel, now)
    g.everyone = <Cell*>calloc(NB, sizeof(Cell))
    g.habit = <Cell*>calloc(<size_t>COUNTS * GAPS * NB, sizeof(Cell))
    g.habit2 = <Cell*>calloc(<size_t>COUNTS * GAPS * TURNS * NB, sizeof(Cell))
    g.leaves = <Cell*>calloc(<size_t>LEAVES * NB, sizeof(Cell))
    g.namespaces = <NamespaceState*>calloc(NAMESPACES, sizeof(NamespaceState))
    g.codes = <Coded*>calloc(<size_t>(APP + 1) * CODES, sizeof(Coded))
    g.sides = <Side*>calloc(<size_t>ROWS * SPAN, sizeof(Side))
    g.examples = <Example*>malloc(EXAMPLES * sizeof(Example))
    g.labels = <Label*>malloc(LABELS * sizeof(Label))
    g.asks = <Ask*>malloc(ASKS * sizeof(Ask))
    if (g.everyone is NULL or g.habit is NULL or g.habit2 is NULL or g.leaves is NULL or g.namespaces is NULL
            or g.codes is NULL or g.sides is NULL or g.examples is NULL or g.labels is NULL or g.asks is NULL):
        return -1
    if arena_init(&g.arena, 64) < 0 or table_init(&g.index, 64) < 0 \
            or attic_init(&g.attic, capacity * MEMOIRS if capacity < 0x10000000 else 0x40000000) < 0:
        return -1
    engine_prior(g, <uint64_t>0x3FF << HAZARD | <uint64_t>1 << MAJORITY)
    return 0

cdef inline void engine_free(Engine* g) noexcept nogil:
    cdef uint32_t i
    for i in range(1, g.arena.top if g.arena.slots is not NULL else 1):
        if g.arena.slots[i].used:
            free(g.trackers[i].key)
    if g.namespaces is not NULL:
        for i in range(NAMESPACES):
            free(g.namespaces[i].cells)
            free(g.namespaces[i].hedges)
    arena_free(&g.arena)
    attic_free(&g.attic)
    table_free(&g.index)
    wheel_free(&g.wheel)
    free(g.trackers)
    free(g.everyone)
    free(g.habit)
    free(g.habit2)
    free(g.leaves)
    free(g.namespaces)
    free(g.codes)
    free(g.sides)
    free(g.examples)
    free(g.labels)
    free(g.asks)
    free(g.line)
    free(g.pokes)
    engine_free_tree(g.tree)
    for i in range(USERS):
        rule_free(g.rules[i])
    memset(g, 0, sizeof(Engine))

cdef inline void engine_free_tree(Tree* t) noexcept nogil:
    if t is not NULL:
        free(t.nodes)
        free(t)

cdef inline void _engine_poke(Engine* g, int64_t hash, int64_t at) noexcept nogil:
    cdef Poke* more
    cdef uint32_t cap
    if g.n_pokes == g.pokes_cap:
        cap = g.pokes_cap * 2 if g.pokes_cap else 64
        more = <Poke*>realloc(g.pokes, cap * sizeof(Poke))
        if more is NULL:
            return              # the entry is looked at again at the end of its window
        g.pokes = more
        g.pokes_cap = cap
    g.pokes[g.n_pokes].hash = hash
    g.pokes[g.n_pokes].at = at
    g.n_pokes += 1

# -- which keys are followed ---------------------------------------------------------------

cdef inline uint32_t engine_find(Engine* g, int64_t hash) noexcept nogil:
    cdef uint32_t at = 0, tag = table_tag(&g.index, hash)
    cdef uint32_t s = table_first(&g.index, tag, &at)
    while s != NIL and g.arena.slots[s].hash != hash:
        s = table_next(&g.index, tag, &at)
    return s

cdef inline bint engine_follows(Engine* g, int64_t hash) noexcept nogil:
    """Is the key in the sample?"""
    return mix64(<uint64_t>hash ^ g.salt) <= g.sample

cdef inline void engine_drop(Engine* g, uint32_t s) noexcept nogil:
    wheel_cancel(&g.wheel, s)
    table_remove(&g.index, g.arena.slots[s].hash, s)
    free(g.trackers[s].key)
    g.trackers[s].key = NULL
    arena_give(&g.arena, s)

cdef inline void _engine_put_away(Engine* g, uint32_t s) noexcept nogil:
    """Nobody has asked for a key in a while: its tracker goes, and what outlives a wait is remembered."""
    cdef Tracker* t = &g.trackers[s]
    attic_put(&g.attic, g.arena.slots[s].hash, &t.rec, t.size, t.cost, t.decayed, t.key, wheel_reached(&g.wheel), g.price)
    engine_drop(g, s)

cdef inline uint32_t _engine_recall(Engine* g, int64_t hash, int64_t now) noexcept nogil:
    """The tracker of a key that the attic remembers, no wait open; NIL when it does not, or there is no room."""
    cdef uint32_t r = attic_find(&g.attic, hash), s
    cdef Tracker* t
    cdef KeyCell cells
    if r == NIL:
        return NIL
    if memoir_over(memoir(&g.attic, r), now, g.price):
        attic_drop(&g.attic, r)
        return NIL
    s = _engine_take(g, hash)
    if s == NIL:
        return NIL
    t = &g.trackers[s]
    memoir_record(memoir(&g.attic, r), now, &t.rec, &t.size, &t.cost, t.decayed)
    t.breakeven = memoir_breakeven(memoir(&g.attic, r), g.price)    # what the decayed counts fade by
    if memoir_cells(memoir(&g.attic, r), &cells):
        t.key = <KeyCell*>malloc(sizeof(KeyCell))
        if t.key is not NULL:
            t.key[0] = cells
    attic_drop(&g.attic, r)
    return s

cdef inline double engine_cost(Engine* g, int64_t hash, uint8_t* count) noexcept nogil:
    """What a miss of a key costs, as far as is known of it, and how often it was asked for; 0 where nothing is."""
    cdef uint32_t s = engine_find(g, hash)
    cdef Record rec
    cdef float size, cost
    cdef float decayed[2]
    if s != NIL:
        count[0] = g.trackers[s].rec.count
        return g.trackers[s].cost
    s = attic_find(&g.attic, hash)
    if s != NIL:
        memoir_record(memoir(&g.attic, s), 0, &rec, &size, &cost, decayed)
        count[0] = rec.count
        return cost
    count[0] = 0
    return 0

cdef inline void _engine_thin(Engine* g) noexcept nogil:
    """Full: follow half as many keys, chosen by hash, so that what stays is still a fair sample."""
    cdef uint32_t s
    g.sample >>= 1
    for s in range(1, g.arena.top):
        if g.arena.slots[s].used and not engine_follows(g, g.arena.slots[s].hash):
            _engine_poke(g, g.arena.slots[s].hash, UNFOLLOWED)
            engine_drop(g, s)
    # A history with a hole in it is none: nothing is remembered of who is not followed.
    for s in range(1, g.attic.top):
        if memoir(&g.attic, s).count and not engine_follows(g, memoir(&g.attic, s).hash):
            attic_drop(&g.attic, s)

cdef inline uint32_t _engine_take(Engine* g, int64_t hash) noexcept nogil:
    """A tracker for a key not followed yet; NIL when it is not in the sample or memory is out."""
    cdef uint32_t s, cap
    cdef Tracker* more
    if mix64(<uint64_t>hash ^ g.salt) > g.sample:
        return NIL
    if g.arena.n >= g.capacity:
        _engine_thin(g)
        if g.arena.n >= g.capacity or mix64(<uint64_t>hash ^ g.salt) > g.sample:
            return NIL
    if g.arena.free_head == NIL and g.arena.top >= g.arena.cap:
        # A tracker is large: a quarter more, and not beyond what may be followed.
        cap = g.arena.cap + g.arena.cap // 4 + 16 if g.arena.cap < 0x40000000 else 0x7FFFFFFF
        if arena_reserve(&g.arena, cap if cap <= g.capacity else g.capacity + 1) < 0:
            return NIL
    if g.trackers_cap < g.arena.cap:
        cap = g.arena.cap
        more = <Tracker*>realloc(g.trackers, <size_t>cap * sizeof(Tracker))
        if more is NULL:
            return NIL
        g.trackers = more
        g.trackers_cap = cap
    if wheel_reserve(&g.wheel, g.arena.cap) < 0 or table_reserve(&g.index) < 0:
        return NIL
    s = arena_take(&g.arena)
    g.arena.slots[s].hash = hash
    memset(&g.trackers[s], 0, sizeof(Tracker))
    table_insert(&g.index, hash, s)
    return s

# -- features ------------------------------------------------------------------------------

cdef inline uint16_t code_of(uint64_t h) noexcept nogil:
    """The number of a category, 1 .. CODES - 1: equal ones share it, others rarely do."""
    return <uint16_t>(1 + mix64(h) % (CODES - 1))

cdef inline float _coded(Engine* g, int feature, uint16_t code) noexcept nogil:
    cdef Coded* c = &g.codes[feature * CODES + code]
    return <float>((c.mean * c.n + 8 * g.code_mean) / (c.n + 8))

cdef inline void _engine_features(Engine* g, Tracker* t, int64_t now) noexcept nogil:
    """The feature vector, in THE order. Categories stand for their share of early requests."""
    cdef int i
    cdef double age = <double>(<uint32_t>((now >> 24) - t.rec.born)) / 59.6, day
    for i in range(APP):
        if i < t.touch.n_features:
            t.x[i] = _coded(g, i, t.touch.code[i]) if t.touch.code[i] else t.touch.number[i]
        else:
            t.x[i] = 0
    t.x[8] = _coded(g, APP, <uint16_t>(t.rec.ns & (CODES - 1)))
    t.x[9] = t.rec.gap1 * 0.5
    t.x[10] = t.rec.gap2 * 0.5
    t.x[11] = 1 if t.rec.gap1 else 0
    t.x[12] = <float>log2(1.0 + t.rec.count)
    t.x[13] = t.rec.size_class
    t.x[14] = t.rec.cost_class
    t.x[15] = <float>log2(1 + age)
    t.x[16] = <float>log2(t.breakeven)
    day = <double>now * (6.283185307179586 / 86400e9)
    t.x[17] = <float>sin(day)
    t.x[18] = <float>cos(day)
    t.x[19] = t.missed

cdef inline void _engine_code(Engine* g, Tracker* t, bint soon) noexcept nogil:
    """Count this wait in the categories it belongs to: was there a request within break-even?"""
    cdef int i
    cdef double y = 1 if soon else 0
    cdef Coded* c
    if t.coded:
        return
    t.coded = 1
    if g.code_n < 20000:
        g.code_n += 1
    g.code_mean += (y - g.code_mean) / g.code_n
    for i in range(APP + 1):
        if i == APP:
            c = &g.codes[APP * CODES + (t.rec.ns & (CODES - 1))]
        elif i < t.touch.n_features and t.touch.code[i]:
            c = &g.codes[i * CODES + t.touch.code[i]]
        else:
            continue
        if c.n < 1000:
            c.n += 1
        c.mean += <float>((y - c.mean) / c.n)

# -- hazards -------------------------------------------------------------------------------

cdef inline void _engine_chain(Engine* g, Tracker* t, Chain* c) noexcept nogil:
    cdef int b = count_bucket(t.rec.count), turn = engine_turn(&t.rec)
    cdef NamespaceState* ns = &g.namespaces[t.rec.ns]
    c.everyone = g.everyone
    c.namespace_ = ns.cells if t.rec.ns else NULL
    c.habit = &g.habit[(b * GAPS + t.rec.gap1) * NB]
    c.habit2 = &g.habit2[((b * GAPS + t.rec.gap1) * TURNS + turn) * NB]
    c.key = t.key
    c.leaf = &g.leaves[t.leaf * NB] if t.has_leaf else NULL
    c.line = t.line if t.has_line else NULL
    c.line_base = t.base
    c.stacked = t.stacked if t.stacked_by else NULL
    c.bucket = b

cdef inline void _engine_cells(Engine* g, Chain* c, int j, int y) noexcept nogil:
    """Bin `j` of a wait is over: every link of its chain hears how."""
    cdef float limit = <float>g.limit
    cell_learn(&c.everyone[j], y, limit)
    if c.namespace_ is not NULL:
        cell_learn(&c.namespace_[j], y, limit)
    cell_learn(&c.habit[j], y, limit)
    cell_learn(&c.habit2[j], y, limit)
    if c.leaf is not NULL:
        cell_learn(&c.leaf[j], y, limit)
    if c.key is not NULL:
        key_learn(c.key, j, y, g.key_limit)

cdef inline void _engine_learn(Engine* g, Tracker* t, int j, int y) noexcept nogil:
    cdef Chain c
    _engine_chain(g, t, &c)
    if g.stacks:
        _engine_stack_learn(g, t, &c, j, y)
    _engine_cells(g, &c, j, y)

# -- the stack -----------------------------------------------------------------------------

cdef inline uint16_t _side_row(uint64_t kind, uint64_t a, uint64_t b) noexcept nogil:
    return <uint16_t>(mix64(mix64(mix64(kind) ^ a) ^ b) & (ROWS - 1))

cdef inline uint64_t _level(double x, double steps) noexcept nogil:
    """A number's logarithmic class, `steps` to the octave; sign and zero are classes of their own."""
    if x == 0:
        return 0
    return <uint64_t>(<int64_t>(steps * log2(x if x > 0 else -x) + 4096)) * 2 + (1 if x > 0 else 0)

cdef inline uint16_t engine_namespace_row(Engine* g, uint32_t ns, int bucket) noexcept nogil:
    """The row of side cells of a namespace and a count bucket."""
    return _side_row(APP, g.namespaces[ns].name if g.namespaces[ns].name else ns, bucket)

cdef inline void _engine_sides(Engine* g, Tracker* t) noexcept nogil:
    """The side contexts of this access: what the application said, and three of our own.

    Rows are found by what means the same in every process, so that they can be saved as they are.
    """
    cdef int i, b = count_bucket(t.rec.count)
    for i in range(SIDES):
        t.side[i] = NO_ROW
    for i in range(t.touch.n_features):
        if t.touch.code[i]:
            t.side[i] = _side_row(g.side_names[i], t.touch.code[i], 1)
        else:
            t.side[i] = _side_row(g.side_names[i], _level(t.touch.number[i], 2), 0)
    if t.rec.ns:
        t.side[APP] = engine_namespace_row(g, t.rec.ns, b)
    t.side[APP + 1] = _side_row(APP + 1, t.rec.size_class, b)
    t.side[APP + 2] = _side_row(APP + 2, _level(t.decayed[0], 4), _level(t.decayed[1], 2))

cdef inline void _engine_side_rows(Engine* g, Tracker* t, Side** rows) noexcept nogil:
    cdef int i
    for i in range(SIDES):
        rows[i] = &g.sides[<size_t>t.side[i] * SPAN] if t.side[i] != NO_ROW else NULL

cdef inline void _engine_sides_learn(Side** rows, int j, int y) noexcept nogil:
    cdef int i
    for i in range(SIDES):
        if rows[i] is not NULL:
            side_learn(&rows[i][j & (SPAN - 1)], y)

cdef inline void _engine_stack(Engine* g, Tracker* t, Chain* c) noexcept nogil:
    """The stack's hazards of this wait from bin `t.bin` on, by the newest weights."""
    cdef Side* rows[SIDES]
    cdef double terms[TERMS]
    cdef int k
    _engine_side_rows(g, t, rows)
    for k in range(t.bin, t.top):
        if k - t.base < WINDOW:
            stack_terms(c, rows, k, terms)
            t.stacked[k - t.base] = <float>stack_mix(&g.stack, c.bucket, stage_of(k - t.base), terms)
    t.stacked_by = g.stack.version
    c.stacked = t.stacked

cdef inline void _engine_stack_learn(Engine* g, Tracker* t, Chain* c, int j, int y) noexcept nogil:
    """Bin `j` of this wait is over: an example for the weights, then for the side contexts."""
    cdef Side* rows[SIDES]
    cdef double terms[TERMS]
    cdef Example* example
    cdef int i
    _engine_side_rows(g, t, rows)
    if y != 2 and (g.example_every <= 1 or mix64(t.salt + <uint64_t>j) % g.example_every == 0) \
            and g.example_head - g.example_tail < EXAMPLES:
        stack_terms(c, rows, j, terms)
        example = &g.examples[g.example_head & (EXAMPLES - 1)]
        for i in range(TERMS):
            example.t[i] = <float>terms[i]
        example.bucket = <uint8_t>c.bucket
        example.stage = <uint8_t>stage_of(j - t.base)
        example.y = <uint8_t>y
        g.example_head += 1
    _engine_sides_learn(rows, j, y)

# -- experts -------------------------------------------------------------------------------

cdef inline double static_ttl(Engine* g, int e) noexcept nogil:
    return 0.0 if e == 0 else <double>edge(g.anchor + e - 1)

cdef inline double multiple_ttl(Tracker* t, int e) noexcept nogil:
    return t.breakeven * _half_octaves(e - MULTIPLE)

cdef inline double _half_octaves(int k) noexcept nogil:
    cdef double x = 1.0 if k & 1 == 0 else 0.7071067811865476
    return x / <double>(1 << (k >> 1))

cdef inline void _engine_charge(Engine* g, Tracker* t, double start, double stop, bint miss) noexcept nogil:
    """The wait went from age `start` to `stop` (ns); with `miss` it ended there by a request.

    Experts with a TTL in between let go at it.
    """
    cdef double rent = t.scale / t.breakeven, ttl, loss
    cdef Hedge* hedge = &g.counts[count_bucket(t.rec.count)]
    cdef NamespaceState* ns = &g.namespaces[t.rec.ns]
    cdef Hedge* own = &ns.hedges[count_bucket(t.rec.count)] if ns.hedges is not NULL else NULL
    cdef int e
    cdef bint held
    for e in range(MAJORITY + 1):
        loss = 0
        held = (t.holding >> e) & 1
        if held:
            ttl = stop
            if e < STATICS:
                ttl = static_ttl(g, e)
            elif e < HAZARD:
                ttl = multiple_ttl(t, e)
            elif USER <= e < USER + USERS and t.user[e - USER] >= 0:
                ttl = t.user[e - USER]
            if ttl >= stop:
                loss = rent * (stop - start)
            else:
                loss = rent * (ttl - start if ttl > start else 0)
                held = False
                t.holding &= ~(<uint64_t>1 << e)
        if miss and not held:
            loss += t.scale
        if loss != 0:
            g.everywhere.round_[e] += loss
            hedge.round_[e] += loss
            if own is not NULL:
                own.round_[e] += loss

cdef inline void _engine_count(Engine* g, Tracker* t) noexcept nogil:
    """One label is complete: close the rounds that are full."""
    cdef NamespaceState* ns = &g.namespaces[t.rec.ns]
    cdef int b = count_bucket(t.rec.count), e
    cdef double best
    g.n_labels += 1
    g.everywhere.pending += 1
    if g.everywhere.pending >= 32:
        best = 1e300
        for e in range(STATICS + MULTIPLES):
            if g.everywhere.round_[e] + 1e-3 * g.everywhere.loss[e] < best:
                best = g.everywhere.round_[e] + 1e-3 * g.everywhere.loss[e]
        if g.excess_head - g.excess_tail < 256:
            g.excess[g.excess_head & 255] = (g.everywhere.round_[MAJORITY] - best) / 32
            g.excess_head += 1
        hedge_close(&g.everywhere, g.prior, g.keep, 1e-3, NULL)
    g.counts[b].pending += 1
    if g.counts[b].pending >= 32:
        hedge_close(&g.counts[b], g.prior, g.keep, 1e-3, &g.everywhere)
    if t.rec.ns:
        ns.labels += 1
        if ns.hedges is NULL:
            if ns.labels >= 2000:
                ns.hedges = <Hedge*>malloc(COUNTS * sizeof(Hedge))
                if ns.hedges is not NULL:
                    for e in range(COUNTS):
                        ns.hedges[e] = g.counts[e]
        else:
            ns.hedges[b].pending += 1
            if ns.hedges[b].pending >= 32:
                hedge_close(&ns.hedges[b], g.prior, g.keep, 1e-3, &g.everywhere)

cdef inline double* engine_weights(Engine* g, Tracker* t) noexcept nogil:
    """The most particular weights that have seen enough."""
    cdef int b = count_bucket(t.rec.count)
    cdef NamespaceState* ns = &g.namespaces[t.rec.ns]
    if t.rec.ns and ns.hedges is not NULL:
        return ns.hedges[b].weight
    if g.counts[b].labels >= 200:
        return g.counts[b].weight
    return g.everywhere.weight

cdef inline double engine_threshold(uint64_t salt) noexcept nogil:
    return <double>(salt >> 11) / 9007199254740992.0

cdef inline uint64_t engine_salt(Engine* g, int64_t hash, int64_t last) noexcept nogil:
    """Of a wait that is not followed."""
    return mix64(g.salt ^ mix64(<uint64_t>hash) ^ <uint64_t>last)

cdef inline int engine_turn(const Record* rec) noexcept nogil:
    """Gap 2 against gap 1: 0 longer, 1 alike, 2 shorter."""
    if rec.gap2:
        if rec.gap2 + 1 < rec.gap1:
            return 2
        if rec.gap2 > rec.gap1 + 1:
            return 0
    return 1

cdef inline void _engine_decide(Engine* g, Tracker* t, double start) noexcept nogil:
    """Every expert looks again at a wait that has lasted `start` ns, at the edge of bin `t.bin`."""
    cdef Chain c
    cdef Outlook o
    cdef double share = 0, total = 0, threshold
    cdef double* w
    cdef int e
    _engine_chain(g, t, &c)
    if t.open_ and g.stacks and t.stacked_by != g.stack.version:
        _engine_stack(g, t, &c)
    o.hazards = NULL
    outlook(&c, &o, t.bin, t.top, start, t.breakeven, t.window)
    for e in range(HAZARDS):
        if o.value[e] <= 0:
            t.holding &= ~(<uint64_t>1 << (HAZARD + e))
    if start == 0:
        t.holding &= ~<uint64_t>1                   # the static TTL of nought
    for e in range(USERS):
        if t.user[e] >= 0 and t.user[e] <= start:
            t.holding &= ~(<uint64_t>1 << (USER + e))
    w = engine_weights(g, t)
    for e in range(MAJORITY):
        total += w[e]
        if (t.holding >> e) & 1:
            share += w[e]
    if not share > 0.5 * total:
        t.holding &= ~(<uint64_t>1 << MAJORITY)
    if (t.holding >> MAJORITY) & 1:
        share += w[MAJORITY]
    # A threshold drawn once a wait makes the expected cost the weighted mean of the experts'.
    threshold = engine_threshold(t.salt)
    t.hold = share > threshold
    g.share = share
    if g.only >= 0:
        t.hold = (t.holding >> g.only) & 1
    t.back = <float>o.back
    t.ratio = <float>o.ratio
    if not t.hold and start <= t.window and t.ratio > t.tempted:
        t.tempted = t.ratio

cdef inline int engine_distribution(Engine* g, Tracker* t, int link, double* by) noexcept nogil:
    """When link `link` of the chain expects the next request of a wait that has reached bin `t.bin`.

    by[i]: the probability that it has come by edge(t.bin + i + 1), writes being the other way to end. Returns
    how many bins there are; 0 without memory. `by` has room for NB.
    """
    cdef Chain c
    cdef Outlook o
    cdef int k, n = 0
    cdef double stay = 1, came = 0, p, q
    o.hazards = <double*>malloc(sizeof(double) * NB * HAZARDS * 2)
    if o.hazards is NULL:
        return 0
    _engine_chain(g, t, &c)
    outlook(&c, &o, t.bin, t.top, 0.0 if t.bin == t.base else <double>edge(t.bin), t.breakeven, t.window)
    for k in range(t.bin, t.top):
        p = o.hazards[(k * HAZARDS + link) * 2]
        q = o.hazards[(k * HAZARDS + link) * 2 + 1]
        came += stay * p
        stay *= 1 - (p + q if p + q < 1 else 1)
        by[n] = came
        n += 1
    free(o.hazards)
    return n

cdef inline float user_ttl(double seconds) noexcept nogil:
    """How long to hold when a user's model expects the next request in `seconds`, ns. NaN, infinite and negative
    mean hold, which is -1."""
    # Half an octave of grace: a wait is seldom shorter than predicted by luck alone.
    return <float>(seconds * 1.4142135623730951e9) if seconds >= 0 and isfinite(seconds) else -1

cdef inline bint _engine_models(Engine* g, Tracker* t) noexcept nogil:
    """Evaluate the published models for this access, if it is in their scope; else the parent cells speak.

    A user's model is asked whatever comes, compiled or not: its scope is its own business.
    """
    cdef float x[FEATURES]
    cdef int e
    cdef bint outside = False
    t.has_line = 0
    if g.line is not NULL:
        if within_reach(t.x, g.line.low, g.line.high, x):
            line_hazards(g.line, x, t.line, t.base, WINDOW)
            t.has_line = 1
        else:
            outside = True
    t.has_leaf = 0
    if g.tree is not NULL:
        if within_reach(t.x, g.tree.low, g.tree.high, x):
            t.leaf = <uint8_t>tree_leaf(g.tree, x)
            t.has_leaf = 1
        else:
            outside = True
    for e in range(USERS):
        if g.rules[e] is not NULL:
            t.user[e] = user_ttl(rule_seconds(g.rules[e], t.x))
    if not t.missed:
        g.n_outside += outside      # the wait after a miss lasts until the value comes, and is none
    return True

# -- waits ---------------------------------------------------------------------------------

cdef inline void _engine_reanchor(Engine* g, double breakeven) noexcept nogil:
    """Keep the static TTLs around the break-even times that are seen."""
    cdef int want
    if g.log_n < 5000:
        g.log_n += 1
    g.mean_log += (log2(breakeven) - g.mean_log) / g.log_n
    want = <int>(2 * g.mean_log) - 18 - (STATICS - 4)
    want = 0 if want < 0 else (NB - STATICS - 1 if want > NB - STATICS - 1 else want)
    if g.anchor < 0 or (g.log_n < 64 and want != g.anchor) or want > g.anchor + 4 or want < g.anchor - 4:
        # The experts change their meaning, so what they lost says nothing any more.
        if g.anchor >= 0:
            hedge_forget(&g.everywhere, 0.0 if g.log_n < 64 else 0.25)
        g.anchor = want

cdef inline void engine_close(Engine* g, uint32_t s, int64_t now, int y) noexcept nogil:
    """The open wait ends at `now`: y = 1 by a request, 2 by a write, 0 by running out."""
    cdef Tracker* t = &g.trackers[s]
    cdef int64_t age = now - t.rec.last
    cdef int j = bin_of(age)
    cdef double start
    cdef Label* label
    if not t.open_:
        return
    t.open_ = 0
    wheel_cancel(&g.wheel, s)
    if y:
        if j < t.bin:
            j = t.bin               # the wait began with everything below its first edge
        start = 0.0 if t.bin == t.base else <double>edge(t.bin)
        if age < start:
            age = <int64_t>start
        if j >= t.top:
            j = t.top - 1
        _engine_charge(g, t, start, <double>age, y == 1)
        _engine_learn(g, t, j, y)
        _engine_code(g, t, y == 1 and age <= t.breakeven)
        if y == 1:
            if age <= t.window:
                g.score_ratio = t.tempted
                g.score_ns = t.rec.ns
                g.score_ready = True
    else:
        j = t.top - 1
        age = edge(t.top)
    _engine_count(g, t)
    g.label_tick += 1
    if g.label_tick >= g.label_every:
        g.label_tick = 0
        if g.label_head - g.label_tail < LABELS:
            label = &g.labels[g.label_head & (LABELS - 1)]
            label.x = t.x
            label.breakeven = <float>(t.breakeven * 1e-9)
            label.seen = <float>(age * 1e-9)
            label.base = t.base
            label.last = <uint8_t>j
            label.top = t.top
            label.y = <uint8_t>y
            g.label_head += 1

cdef inline double engine_window(Engine* g, double breakeven) noexcept nogil:
    """The protected window of an entry, ns. A quarter of the break-even time at the stated price, where one is stated:
    pressure on capacity must not shorten what was promised."""
    if g.window_ns >= 0:
        return g.window_ns
    if g.stated > 0:
        breakeven *= g.price / g.stated
    return breakeven * 0.25 if breakeven < 3.6e19 else 9e18

cdef inline void _engine_open(Engine* g, uint32_t s, int64_t now) noexcept nogil:
    """A wait begins at `now`."""
    cdef Tracker* t = &g.trackers[s]
    cdef double b
    cdef int at
    cdef uint32_t i
    t.serial += 1
    t.tempted = -1
    t.hold = 1
    t.back = 1
    t.ratio = 0
    b = t.cost / (t.size * g.price) if g.price > 0 and t.size > 0 else -1
    if not (b >= 2 and b < 4e18):
        # Waiting costs nothing, or nothing that could ever add up to a miss.
        t.open_ = 0
        t.breakeven = 0
        t.window = INT64_MAX
        wheel_cancel(&g.wheel, s)
        return
    t.breakeven = b
    t.window = <int64_t>engine_window(g, b)
    _engine_reanchor(g, b)
    at = bin_of(<int64_t>b)
    t.base = <uint8_t>(at - BELOW if at > BELOW else 0)
    t.top = <uint8_t>(at + 3 if at + 3 < NB else NB - 1)
    if t.base >= t.top:
        t.base = t.top - 1
    t.bin = t.base
    if g.mean_cost == 0:
        g.mean_cost = t.cost
    g.mean_cost += (t.cost - g.mean_cost) * 0.001
    t.scale = t.cost / g.mean_cost if g.mean_cost > 0 else 1
    if t.scale > 100:
        t.scale = 100
    t.holding = (<uint64_t>1 << (MAJORITY + 1)) - 1
    t.coded = 0
    # With the time, since serials begin again when a key was forgotten, and the regret bound needs a draw for each wait.
    t.salt = mix64(g.salt ^ mix64(<uint64_t>g.arena.slots[s].hash ^ mix64(<uint64_t>now)) ^ t.serial)
    for i in range(USERS):
        t.user[i] = -1
    if t.rec.ns and g.namespaces[t.rec.ns].cells is NULL:
        g.namespaces[t.rec.ns].cells = <Cell*>calloc(NB, sizeof(Cell))
    if t.rec.count >= 2:
        if t.key is NULL:
            t.key = <KeyCell*>calloc(1, sizeof(KeyCell))
            if t.key is not NULL:
                t.key.base = t.base
        else:
            key_rebase(t.key, t.base)
    _engine_features(g, t, now)
    if g.stacks:
        _engine_sides(g, t)
    t.stacked_by = 0
    _engine_models(g, t)
    t.open_ = 1
    g.n_waits += 1
    if g.wants_asks and g.ask_head - g.ask_tail < ASKS:
        g.asks[g.ask_head & (ASKS - 1)].tracker = s
        g.asks[g.ask_head & (ASKS - 1)].wait = <uint32_t>t.salt
        g.ask_head += 1
    _engine_decide(g, t, 0)
    t.at_first = t.holding
    t.at_once = t.tempted
    if not t.hold:
        _engine_poke(g, g.arena.slots[s].hash, now)
    wheel_schedule(&g.wheel, s, now + edge(t.base + 1))

cdef inline void _engine_edge(Engine* g, uint32_t s) noexcept nogil:
    """The timer of a tracker fired: its wait has reached the next edge, or is long over."""
    cdef Tracker* t = &g.trackers[s]
    if not t.open_:
        _engine_poke(g, g.arena.slots[s].hash, UNFOLLOWED)
        _engine_put_away(g, s)
        return
    _engine_learn(g, t, t.bin, 0)
    _engine_charge(g, t, 0.0 if t.bin == t.base else <double>edge(t.bin), <double>edge(t.bin + 1), False)
    t.bin += 1
    if edge(t.bin) > t.breakeven:
        _engine_code(g, t, False)
    if t.bin >= t.top:
        engine_close(g, s, t.rec.last + edge(t.top), 0)
        _engine_poke(g, g.arena.slots[s].hash, t.rec.last + edge(t.top))
        if t.window > edge(t.top):
            # Whoever holds the entry has to ask the guard, until the window is over.
            t.hold = 0
            wheel_schedule(&g.wheel, s, t.rec.last + t.window + 1 if t.window < INT64_MAX - 1 - t.rec.last else INT64_MAX)
        else:
            # What is known of the key outlives its entry: forgetting it early costs points.
            _engine_put_away(g, s)
        return
    _engine_decide(g, t, <double>edge(t.bin))
    if not t.hold:
        _engine_poke(g, g.arena.slots[s].hash, t.rec.last + edge(t.bin))
    wheel_schedule(&g.wheel, s, t.rec.last + edge(t.bin + 1) if edge(t.bin + 1) < INT64_MAX - t.rec.last
                   else INT64_MAX)

cdef inline bint engine_step(Engine* g, int64_t now) noexcept nogil:
    """Process the next tracker that is due at `now`; False when there is none."""
    cdef uint32_t s = wheel_pop(&g.wheel, now)
    if s == NIL:
        return False
    _engine_edge(g, s)
    return True

cdef inline void _engine_info(Engine* g, Tracker* t, const Touch* touch) noexcept nogil:
    cdef double cost = touch.cost
    t.size = <float>touch.size
    if not (cost >= 0 and isfinite(cost)):
        cost = t.cost if t.cost > 0 else g.miss_cost
    t.cost = <float>cost
    t.rec.ns = touch.ns
    t.touch = touch[0]

cdef inline void _engine_fade(Tracker* t, int64_t gap) noexcept nogil:
    """One more access, `gap` ns after the one before."""
    cdef double lives = gap / t.breakeven if t.breakeven > 0 else 0
    t.decayed[0] = <float>(1 + t.decayed[0] * exp2(-lives))
    t.decayed[1] = <float>(1 + t.decayed[1] * exp2(-0.125 * lives))

cdef inline void engine_again(Engine* g, int64_t hash, int64_t before, uint32_t n) noexcept nogil:
    """A key was asked for `n` times right after its last event, the last time at `before`, and was answered.

    Those waits are over before their first bin is, so they teach the first bins and charge whoever let go at once; the
    wait that is open is taken for the one that began at `before`.
    """
    cdef uint32_t s = engine_find(g, hash), i
    cdef Tracker* t
    cdef Chain c
    cdef Side* rows[SIDES]
    cdef Hedge* hedge
    cdef Hedge* own
    cdef double rent, loss
    cdef int64_t age
    cdef int e
    if s == NIL or n == 0:
        return
    t = &g.trackers[s]
    age = before - t.rec.last
    if age < 0:
        age = 0
    if t.open_:
        _engine_chain(g, t, &c)
        _engine_side_rows(g, t, rows)
        for i in range(n):
            _engine_cells(g, &c, t.base, 1)
            if g.stacks:
                _engine_sides_learn(rows, t.base, 1)
        hedge = &g.counts[count_bucket(t.rec.count)]
        own = g.namespaces[t.rec.ns].hedges
        if own is not NULL:
            own = &own[count_bucket(t.rec.count)]
        rent = t.scale / t.breakeven * <double>age
        for e in range(MAJORITY + 1):
            loss = rent if (t.at_first >> e) & 1 and e > 0 else n * t.scale
            g.everywhere.round_[e] += loss
            hedge.round_[e] += loss
            if own is not NULL:
                own.round_[e] += loss
        for i in range(n):
            _engine_count(g, t)
        g.score_again = n
        g.score_at_once = t.at_once
        g.score_ns = t.rec.ns
    for i in range(n):
        t.rec.count = count_up(t.rec.count, <uint32_t>(before >> 7) * <uint32_t>2654435761 + i * <uint32_t>40503 >> 8)
        t.rec.gap2 = t.rec.gap1
        t.rec.gap1 = <uint8_t>(1 + bin_of(age // n))
    _engine_fade(t, age)
    t.decayed[0] += n - 1
    t.decayed[1] += n - 1
    t.rec.last += age

cdef inline uint32_t engine_event(Engine* g, int64_t hash, int64_t now, int kind, const Touch* touch) noexcept nogil:
    """Something happened to a key. Returns its tracker, or NIL when it is not followed.

    `touch` may be NULL: then what was known of the key stays.
    """
    cdef uint32_t s = engine_find(g, hash)
    cdef Tracker* t
    cdef bint fresh = False
    if s == NIL:
        if kind == REMOVED or kind == EVICTED:
            return NIL
        s = _engine_recall(g, hash, now)
        if s == NIL:
            if touch is NULL:
                return NIL
            s = _engine_take(g, hash)
            if s == NIL:
                return NIL
            fresh = True
    t = &g.trackers[s]
    if not fresh and now < t.rec.last:
        now = t.rec.last
    if kind == REMOVED:
        engine_close(g, s, now, 2)
        wheel_schedule(&g.wheel, s, now + <int64_t>(2 * t.breakeven if t.breakeven < 1e17 else 2e17))
        return s
    if kind == EVICTED:
        # The wait goes on: the key may still be wanted, and the label is as good as any.
        return s
    if fresh:
        _engine_info(g, t, touch)
        record_start(&t.rec, now, t.size, t.cost, t.rec.ns)
        t.missed = kind == MISSED
        t.decayed[0] = 1
        t.decayed[1] = 1
        _engine_open(g, s, now)
        return s
    if kind == STORED and t.missed:
        # The value that the miss asked for: the same access, now with its price.
        engine_close_quietly(g, s)
        t.missed = 0
        t.rec.last = now
        if touch is not NULL:
            _engine_info(g, t, touch)
        _engine_open(g, s, now)
        return s
    engine_close(g, s, now, 2 if kind == STORED else 1)
    if touch is not NULL:
        _engine_info(g, t, touch)
    _engine_fade(t, now - t.rec.last)
    record_touch(&t.rec, now)
    t.missed = kind == MISSED
    _engine_open(g, s, now)
    return s

cdef inline void engine_close_quietly(Engine* g, uint32_t s) noexcept nogil:
    """End a wait that never was one: no label."""
    g.trackers[s].open_ = 0
    wheel_cancel(&g.wheel, s)

cdef inline void engine_judge(Engine* g, const Record* rec, double breakeven, int64_t window, int64_t age,
                              int64_t hash, Tracker* t) noexcept nogil:
    """The mixture's verdict on a key that is not followed, from its record alone, into `t`."""
    cdef int at = bin_of(<int64_t>breakeven), e
    memset(t, 0, sizeof(Tracker))
    t.rec = rec[0]
    t.breakeven = breakeven
    t.window = window
    t.base = <uint8_t>(at - BELOW if at > BELOW else 0)
    t.top = <uint8_t>(at + 3 if at + 3 < NB else NB - 1)
    at = bin_of(age)
    t.bin = <uint8_t>(t.base if at < t.base else (t.top - 1 if at >= t.top else at))
    t.salt = engine_salt(g, hash, rec.last)
    t.holding = (<uint64_t>1 << (MAJORITY + 1)) - 1
    for e in range(STATICS):
        if static_ttl(g, e) <= age:
            t.holding &= ~(<uint64_t>1 << e)
    for e in range(MULTIPLE, HAZARD):
        if multiple_ttl(t, e) <= age:
            t.holding &= ~(<uint64_t>1 << e)
    for e in range(USERS):
        t.user[e] = -1
    _engine_decide(g, t, <double>age)
    if edge(t.top) <= age:
        t.hold = 0

cdef inline void engine_alarm(Engine* g) noexcept nogil:
    """Drift: the past counts a quarter, and cells listen again."""
    cdef int i, b
    cdef size_t k
    hedge_forget(&g.everywhere, 0.25)
    for b in range(COUNTS):
        hedge_forget(&g.counts[b], 0.25)
    for i in range(NAMESPACES):
        if g.namespaces[i].hedges is not NULL:
            for b in range(COUNTS):
                hedge_forget(&g.namespaces[i].hedges[b], 0.25)
        if g.namespaces[i].cells is not NULL:
            for b in range(NB):
                if g.namespaces[i].cells[b].n > 200:
                    g.namespaces[i].cells[b].n = 200
    for b in range(NB):
        if g.everyone[b].n > 200:
            g.everyone[b].n = 200
    for k in range(<size_t>LEAVES * NB):
        if g.leaves[k].n > 100:
            g.leaves[k].n = 100
    for k in range(<size_t>COUNTS * GAPS * NB):
        if g.habit[k].n > 100:
            g.habit[k].n = 100
    for k in range(<size_t>COUNTS * GAPS * TURNS * NB):
        if g.habit2[k].n > 100:
            g.habit2[k].n = 100
