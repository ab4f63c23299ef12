# What a Store holds, as plain lists, and a new Store that holds it: for pickle and copy.
#
# Entries travel in the order of the policy's walk, with what is left of their time and with what the policy marks on
# them, as far as it can be told: LFU's counts, SIEVE's marks and hand. What a policy remembers of keys that have left
# stays behind.

cdef object _mark(Store c, uint32_t s):
    """What the policy knows of an entry beside its place in the walk."""
    return lfu.uses(&c.policy, s) if c._policy_name == "lfu" else c.arena.slots[s].visited

cdef int _put_marks(Store c, list slots, list marks, object hand) except -1:
    """Give the entries of these slots, in the order of a walk, the marks of that walk."""
    cdef Py_ssize_t i
    cdef uint32_t s
    for i in range(len(slots)):
        s = slots[i]
        if s == NIL or not c.arena.slots[s].used:
            continue
        if c._policy_name == "lfu":
            lfu.resume(&c.policy, &c.arena, s, marks[i])
        elif c._policy_name == "sieve":
            c.arena.slots[s].visited = marks[i]
            if i == hand:
                c.policy.hand = s
    return 0

def entries_of(Store c):
    """Everything held, as a dict of lists; times in nanoseconds from now on. What it holds is shared."""
    cdef uint32_t s = NIL
    cdef int64_t now = c._maybe_now(), at
    cdef Py_ssize_t i
    cdef dict out = {"keys": [], "values": [], "sizes": None if c.weights is NULL else [], "marks": [], "hand": None,
                     "left": None, "idle": None, "declared": None, "namespaces": None, "costs": None,
                     "float_sizes": c.float_sizes, "measured": c.measured}
    cdef list keys = out["keys"], values = out["values"], marks = out["marks"], numbers = [], left = [], idle = [], costs = []
    cdef list sizes = [], declared = []
    if c.x.kind != NEVER:
        c._due(now)
        c._flush()
    # Nothing is made here that the garbage collector would look at, so that no finalizer comes between.
    while True:
        s = c.policy.after(&c.policy, &c.arena, s)
        if s == NIL:
            break
        if s == c.policy.hand:
            out["hand"] = PyList_GET_SIZE(keys)
        keys.append(c._key_at(s))
        values.append(c._value_at(s))
        marks.append(_mark(c, s))
        if c.weights is not NULL:
            sizes.append(c.weights[s])
        if c.x.kind != NEVER:
            at = life_ceiling(&c.x, s)
            left.append(None if at == INT64_MAX else at - now)
            idle.append(now - c.x.lives[s].rec.last)
            declared.append(c.x.fresh is NULL or life_fresh(&c.x, s) == NIL)
            numbers.append(c.x.lives[s].rec.ns if c.x.kind == LEARNED else 0)
            costs.append(c.x.lives[s].cost)
    if c.weights is not NULL:
        out["sizes"] = sizes
    if c.x.kind != NEVER:
        labels = {number: label for label, number in list(c._namespaces.items())}
        out.update(left=left, idle=idle, declared=declared, namespaces=[labels.get(number) for number in numbers], costs=costs)
    return out

def put_entries(Store c, dict entries):
    """Hold what `entries_of` gave, in a cache that holds nothing yet. Nothing is told, counted or evicted."""
    cdef Touch touch
    cdef Py_ssize_t i
    cdef int64_t now, ceiling, s
    cdef Py_hash_t h
    cdef double size, limit = c.limit
    cdef list keys = entries["keys"], values = entries["values"], slots = []
    left, idle, sizes = entries["left"], entries["idle"], entries["sizes"]
    c.float_sizes, c.measured = entries["float_sizes"], entries["measured"]
    if left is not None:
        c._arm()
    try:
        c.limit = INFINITY      # what fitted fits, though sums of floats may differ by their order
        for i in range(len(keys)):
            h = PyObject_Hash(keys[i])
            now = c._maybe_now()
            size = 1 if sizes is None else sizes[i]
            memset(&touch, 0, sizeof(Touch))
            touch.size, touch.cost = size, -1
            ceiling = INT64_MAX
            if left is not None:
                if left[i] is not None:
                    ceiling = later(now, left[i])
                if c.x.kind == LEARNED:
                    touch.cost = entries["costs"][i]
                    if entries["namespaces"][i] is not None:
                        touch.ns = c._namespace(entries["namespaces"][i])
            c._put(keys[i], h, values[i], size, now, ceiling, &touch, left is None or entries["declared"][i], False, None)
            s = c._find(keys[i], h)
            slots.append(s)
            if s != NIL and c.x.kind == IDLE:
                c.x.lives[s].rec.last = now - <int64_t>idle[i]
                _expiry_set(&c.x, <uint32_t>s, later(c.x.lives[s].rec.last, c.x.ttl))
    finally:
        c.limit = limit
        c._flush()
    _put_marks(c, slots, entries["marks"], entries["hand"])
    c.inserts = 0
