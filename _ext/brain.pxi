# Brain: the learner's handle on an engine. Labels and questions come out as arrays, frozen models
# go in by pointer swap. Every method runs to its end under the interpreter lock, so a request
# sees the old model or the new one and nothing between.

EXPERT_COUNT = EXPERTS
FEATURE_COUNT = FEATURES
GROUP_COUNT = GROUPS
LEAF_COUNT = LEAVES
APP_FEATURES = APP
BUCKET_COUNT = BUCKETS
STAGE_COUNT = STAGES
TERM_COUNT = TERMS
CHAIN_TERM_COUNT = CHAIN_TERMS
SIDE_ROWS = ROWS
SLOT_STATIC = 0
SLOT_MULTIPLE = MULTIPLE
SLOT_HAZARD = HAZARD
SLOT_USER = USER
SLOT_MAJORITY = MAJORITY
USER_COUNT = USERS

cdef class Brain:
    """The state of one learner. Times in seconds at this boundary.

    mask: bit e lets expert e take part (static experts always do). price: cost per unit of size
    and second. window: seconds, or None for a quarter of each break-even time.
    """
    cdef Engine* g
    cdef uint32_t leaf_top
    cdef readonly list feature_names    # the application's, in the order of their places in x; `place` alone adds
    cdef dict _places                   # the same, by name

    def __cinit__(self, *, uint64_t mask, double price, double alpha, window, double miss_cost,
                  uint64_t seed, uint32_t capacity, double now):
        self.g = <Engine*>calloc(1, sizeof(Engine))
        if self.g is NULL or engine_init(self.g, capacity, to_ns(now), seed) < 0:
            raise MemoryError
        engine_prior(self.g, mask)
        self.g.price = price / 1e9
        self.g.alpha = alpha
        self.g.miss_cost = miss_cost
        # Held below the end of time, so that sums with it stay in range.
        self.g.window_ns = -1 if window is None else min(<double>to_ns(window), 4e18)
        self.leaf_top = 1
        self.feature_names = []
        self._places = {}

    def __dealloc__(self):
        if self.g is not NULL:
            engine_free(self.g)
            free(self.g)

    @property
    def price(self):
        """Cost per unit of size and second."""
        return self.g.price * 1e9

    @price.setter
    def price(self, double value):
        self.g.price = value / 1e9

    @property
    def alpha(self):
        """The share of protected requests that may be lost."""
        return self.g.alpha

    cpdef int place(self, name) except -2:
        """The place in x of an application's feature; a new name takes the next one. -1: all are taken."""
        at = self._places.get(name)
        if at is None:
            at = len(self.feature_names)
            if at >= APP:
                return -1
            self._places[name] = at
            self.feature_names.append(name)
            self.g.side_names[at] = _fnv(name)
        return at

    @property
    def labels(self):
        return self.g.n_labels

    @property
    def outside(self):
        """Accesses that were out of the range of what a published model was trained on."""
        return self.g.n_outside

    @property
    def tracked(self):
        """Keys that are followed: a wait of theirs is open, or was a moment ago."""
        return self.g.arena.n

    @property
    def remembered(self):
        """Keys in the attic: nobody has asked for them in a while."""
        return self.g.attic.n

    def footprint(self):
        """Bytes allocated in the core for keys, as (for followed ones, for remembered ones)."""
        cdef Engine* g = self.g
        cdef uint64_t followed = <uint64_t>g.arena.cap * sizeof(Slot) + <uint64_t>g.trackers_cap * sizeof(Tracker) \
            + <uint64_t>g.wheel.cap * sizeof(Timer) + (<uint64_t>g.index.mask + 1) * sizeof(TableCell)
        cdef uint32_t s
        for s in range(1, g.arena.top):
            if g.arena.slots[s].used and g.trackers[s].key is not NULL:
                followed += sizeof(KeyCell) + 16
        return followed, attic_bytes(&g.attic)

    @property
    def only(self):
        """Follow this expert alone; -1 = the mixture. For tests and ablations."""
        return self.g.only

    @only.setter
    def only(self, int expert):
        if not -1 <= expert < EXPERTS:
            raise ValueError(f"only: {expert} is not an expert; the accepted range is -1 to {EXPERTS - 1}")
        self.g.only = expert

    def want_asks(self, bint wanted):
        """Queue every new wait for `take_asks`, since a model must be asked from outside."""
        self.g.wants_asks = wanted

    def thin_labels(self, uint32_t every):
        """Hand out one label in `every`."""
        self.g.label_every = every if every > 1 else 1

    def take_labels(self, float[:, ::1] x, float[:, ::1] info):
        """Fill rows with finished waits, oldest first, and return how many.

        x: (n, FEATURE_COUNT). info: (n, 6) with break-even seconds, seconds seen, first bin,
        bin of the end, bin after the last, and 0 nothing came, 1 a request, 2 a write.
        """
        cdef Py_ssize_t n = 0, rows = x.shape[0] if x.shape[0] < info.shape[0] else info.shape[0]
        cdef int d
        if x.shape[1] != FEATURES or info.shape[1] != 6:
            raise ValueError("x, info: expected shapes (n, FEATURE_COUNT) and (n, 6)")
        while n < rows and self.g.label_tail != self.g.label_head:
            label = &self.g.labels[self.g.label_tail & (LABELS - 1)]
            self.g.label_tail += 1
            for d in range(FEATURES):
                x[n, d] = label.x[d]
            info[n, 0] = label.breakeven
            info[n, 1] = label.seen
            info[n, 2] = label.base
            info[n, 3] = label.last
            info[n, 4] = label.top
            info[n, 5] = label.y
            n += 1
        return n

    def take_examples(self, float[:, ::1] t, uint8_t[:, ::1] info):
        """Fill rows with examples of the stack, oldest first, and return how many.

        t: (n, TERM_COUNT), log-odds. info: (n, 3) with the count bucket, the stage, and 1 where the request came.
        """
        cdef Py_ssize_t n = 0, rows = t.shape[0] if t.shape[0] < info.shape[0] else info.shape[0]
        cdef int i
        if t.shape[1] != TERMS or info.shape[1] != 3:
            raise ValueError("t, info: expected shapes (n, TERM_COUNT) and (n, 3)")
        while n < rows and self.g.example_tail != self.g.example_head:
            example = &self.g.examples[self.g.example_tail & (EXAMPLES - 1)]
            self.g.example_tail += 1
            for i in range(TERMS):
                t[n, i] = example.t[i]
            info[n, 0] = example.bucket
            info[n, 1] = example.stage
            info[n, 2] = example.y
            n += 1
        return n

    def thin_examples(self, uint32_t every):
        """Hand out about one example of the stack in `every`."""
        self.g.example_every = every if every > 1 else 1

    def publish_stack(self, float[:, :, ::1] weight, float[:, ::1] bias):
        """Swap in the stack's weights: (BUCKET_COUNT, STAGE_COUNT, TERM_COUNT) on log-odds, and their biases."""
        cdef int b, j, i
        if weight.shape[0] != BUCKETS or weight.shape[1] != STAGES or weight.shape[2] != TERMS \
                or bias.shape[0] != BUCKETS or bias.shape[1] != STAGES:
            raise ValueError("publish_stack: arrays of the wrong shape")
        for b in range(BUCKETS):
            for j in range(STAGES):
                if not isfinite(bias[b, j]):
                    raise ValueError(f"publish_stack: bias[{b}, {j}] is not finite")
                for i in range(TERMS):
                    if not isfinite(weight[b, j, i]):
                        raise ValueError(f"publish_stack: weight[{b}, {j}, {i}] is not finite")
        for b in range(BUCKETS):
            for j in range(STAGES):
                self.g.stack.bias[b][j] = bias[b, j]
                for i in range(TERMS):
                    self.g.stack.weight[b][j][i] = weight[b, j, i]
        self.g.stack.version = self.g.stack.version + 1 if self.g.stack.version < 0xFFFFFFFF else 1
        AC_MODEL_PUBLISHED(BUCKETS)

    def take_asks(self, uint32_t[:, ::1] who, float[:, ::1] x):
        """Waits whose lifetime a user's model should predict: (tracker, wait) rows and features."""
        cdef Py_ssize_t n = 0, rows = who.shape[0] if who.shape[0] < x.shape[0] else x.shape[0]
        cdef int d
        while n < rows and self.g.ask_tail != self.g.ask_head:
            ask = &self.g.asks[self.g.ask_tail & 4095]
            self.g.ask_tail += 1
            if not self.g.arena.slots[ask.tracker].used or <uint32_t>self.g.trackers[ask.tracker].salt != ask.wait:
                continue
            who[n, 0] = ask.tracker
            who[n, 1] = ask.wait
            for d in range(FEATURES):
                x[n, d] = self.g.trackers[ask.tracker].x[d]
            n += 1
        return n

    def answer(self, uint32_t tracker, uint32_t wait, int model, double seconds):
        """A user's model expects this wait to last `seconds`; NaN, infinite and negative mean hold."""
        if tracker < self.g.arena.top and self.g.arena.slots[tracker].used \
                and <uint32_t>self.g.trackers[tracker].salt == wait and 0 <= model < USERS:
            self.g.trackers[tracker].user[model] = user_ttl(seconds)

    def publish_rule(self, int model, int32_t[::1] feature, double[::1] threshold, uint32_t[::1] left, uint32_t[::1] right,
                     double[:, ::1] rows, bint exponential):
        """Swap in a user's model as splits and linear leaves (learn/compiled.py, `Rule`); it is asked no more."""
        cdef Py_ssize_t i, n = feature.shape[0], leaves = rows.shape[0]
        cdef Rule* rule
        if not 0 <= model < USERS:
            raise ValueError(f"publish_rule: model {model} is not one of {USERS}")
        if n == 0 or threshold.shape[0] != n or left.shape[0] != n or right.shape[0] != n or leaves == 0 \
                or rows.shape[1] != FEATURES + 1:
            raise ValueError("publish_rule: arrays of the wrong shape")
        for i in range(n):
            # Children come after their parent, so a walk always ends.
            if feature[i] >= FEATURES or (feature[i] >= 0 and not (i < left[i] < n and i < right[i] < n)) \
                    or (feature[i] < 0 and left[i] >= leaves):
                raise ValueError(f"publish_rule: node {i} is not sound")
        rule = <Rule*>calloc(1, sizeof(Rule))
        if rule is NULL:
            raise MemoryError
        rule.forks = <Fork*>malloc(n * sizeof(Fork))
        rule.rows = <double*>malloc(leaves * (FEATURES + 1) * sizeof(double))
        if rule.forks is NULL or rule.rows is NULL:
            rule_free(rule)
            raise MemoryError
        for i in range(n):
            rule.forks[i].feature = feature[i]
            rule.forks[i].threshold = threshold[i]
            rule.forks[i].left = left[i]
            rule.forks[i].right = right[i]
        memcpy(rule.rows, &rows[0, 0], leaves * (FEATURES + 1) * sizeof(double))
        rule.exponential = exponential
        rule, self.g.rules[model] = self.g.rules[model], rule
        rule_free(rule)
        AC_MODEL_PUBLISHED(n)

    def retract_rule(self, int model):
        """A user's model can no longer be compiled: it is to be asked."""
        if not 0 <= model < USERS:
            raise ValueError(f"retract_rule: model {model} is not one of {USERS}")
        rule_free(self.g.rules[model])
        self.g.rules[model] = NULL

    def rule_seconds(self, int model, float[::1] x):
        """What the rule of a user's model says to a feature vector, in seconds; None where there is none."""
        if x.shape[0] != FEATURES:
            raise ValueError(f"x: expected {FEATURES} features")
        if not 0 <= model < USERS or self.g.rules[model] is NULL:
            return None
        return rule_seconds(self.g.rules[model], &x[0])

    def publish_line(self, float[:, ::1] weight, float[::1] bias, float[::1] low, float[::1] high):
        """Swap in stacked logistic hazards: weight (GROUP_COUNT, FEATURE_COUNT), bias (GROUP_COUNT,).

        low, high (FEATURE_COUNT,): the range that was trained on.
        """
        cdef Line* line
        cdef int i, d
        if weight.shape[0] != GROUPS or weight.shape[1] != FEATURES or bias.shape[0] != GROUPS \
                or low.shape[0] != FEATURES or high.shape[0] != FEATURES:
            raise ValueError("publish_line: arrays of the wrong shape")
        for i in range(GROUPS):
            if not isfinite(bias[i]):
                raise ValueError(f"publish_line: bias[{i}] is not finite")
            for d in range(FEATURES):
                if not isfinite(weight[i, d]):
                    raise ValueError(f"publish_line: weight[{i}, {d}] is not finite")
        line = <Line*>calloc(1, sizeof(Line))
        if line is NULL:
            raise MemoryError
        for i in range(GROUPS):
            line.bias[i] = bias[i]
            for d in range(FEATURES):
                line.weight[i][d] = weight[i, d]
        for d in range(FEATURES):
            line.low[d] = low[d]
            line.high[d] = high[d]
        line, self.g.line = self.g.line, line
        free(line)
        AC_MODEL_PUBLISHED(GROUPS)

    def publish_tree(self, int32_t[::1] feature, float[::1] threshold, uint32_t[::1] left, uint32_t[::1] right,
                     float[::1] low, float[::1] high):
        """Swap in a tree: node i tests x[feature[i]] <= threshold[i]; feature < 0 is leaf number left[i]."""
        cdef Py_ssize_t i, n = feature.shape[0]
        cdef int d
        cdef Tree* tree
        if n == 0 or threshold.shape[0] != n or left.shape[0] != n or right.shape[0] != n \
                or low.shape[0] != FEATURES or high.shape[0] != FEATURES:
            raise ValueError("publish_tree: arrays of the wrong shape")
        for i in range(n):
            if feature[i] >= 0:
                # Children come after their parent, so a walk always ends.
                if feature[i] >= FEATURES or not (i < left[i] < n and i < right[i] < n):
                    raise ValueError(f"publish_tree: node {i} is not sound")
                if not isfinite(threshold[i]):
                    raise ValueError(f"publish_tree: threshold[{i}] is not finite")
            elif left[i] >= LEAVES:
                raise ValueError(f"publish_tree: leaf number {left[i]} is not below {LEAVES}")
        tree = <Tree*>calloc(1, sizeof(Tree))
        if tree is NULL:
            raise MemoryError
        tree.nodes = <TreeNode*>malloc(n * sizeof(TreeNode))
        if tree.nodes is NULL:
            free(tree)
            raise MemoryError
        tree.n = <uint32_t>n
        for i in range(n):
            tree.nodes[i].feature = feature[i]
            tree.nodes[i].threshold = threshold[i]
            tree.nodes[i].left = left[i]
            tree.nodes[i].right = right[i]
        for d in range(FEATURES):
            tree.low[d] = low[d]
            tree.high[d] = high[d]
        tree, self.g.tree = self.g.tree, tree
        engine_free_tree(tree)
        AC_MODEL_PUBLISHED(n)

    def inherit_leaf(self, uint32_t parent, uint32_t child):
        """A leaf was split: the child starts from what the parent's cell knows."""
        if parent >= LEAVES or child >= LEAVES:
            raise ValueError(f"inherit_leaf: leaf numbers must be below {LEAVES}")
        memcpy(&self.g.leaves[child * NB], &self.g.leaves[parent * NB], NB * sizeof(Cell))

    def take_excess(self):
        """The majority's loss less the best static expert's, a label, for each round closed since."""
        out = []
        while self.g.excess_tail != self.g.excess_head:
            out.append(self.g.excess[self.g.excess_tail & 255])
            self.g.excess_tail += 1
        return out

    def alarm(self):
        """Drift: forget most of what was learned about who predicts best."""
        engine_alarm(self.g)

    def weights(self):
        """The global weight of each expert; sums to one over those that take part."""
        return [self.g.everywhere.weight[e] for e in range(EXPERTS)]

    def taking_part(self):
        """Which experts take part."""
        return [self.g.prior[e] > 0 for e in range(EXPERTS)]

    def losses(self):
        """The discounted loss of each expert over that of the best, in average misses."""
        return [self.g.everywhere.loss[e] for e in range(EXPERTS)]

    def static_ttls(self):
        """The TTLs of the static experts, in seconds; empty before the first access."""
        cdef int e
        if self.g.anchor < 0:
            return []
        return [0.0] + [<double>edge(self.g.anchor + e - 1) / 1e9 for e in range(1, STATICS)]

    # -- what outlives the process (state.pxi); learn/knowledge.py validates before it calls

    def memory(self):
        """How much each kind of array remembers: what was counted beyond it counts no more."""
        return {"cell": self.g.limit, "hedge": 32 / (1 - self.g.keep), "code": 1000.0, "key": <double>self.g.key_limit,
                "code_mean": 20000.0, "mean_log": 5000.0, "side": <double>SIDE_LIMIT,
                # Of learned validity, where counts fade: a little above what they can come to.
                "risk": 2001.0, "reads": 10.1, "told": 34.0, "prior": 1000.0,
                "shaken": 50.1, "all_shaken": 501.0}

    def arrays(self):
        """The arrays of fixed size, by name, as bytes."""
        return {name: <bytes>(<char*><size_t>at)[:<Py_ssize_t>n * <Py_ssize_t>KINDS[kind]["itemsize"]]
                for name, kind, at, n in _saved(self.g)}

    def put_arrays(self, dict arrays):
        """Take over what `arrays` gave; those that are absent stay as they are."""
        cdef const unsigned char[::1] view
        cdef size_t at
        for name, kind, address, n in _saved(self.g):
            if name in arrays:
                view = arrays[name]
                if view.shape[0] != n * KINDS[kind]["itemsize"]:
                    raise ValueError(f"arrays: {name} has {view.shape[0]} bytes")
                at = address
                memcpy(<void*>at, &view[0], view.shape[0])
        _weigh_all(self.g)

    def numbers(self):
        """The single numbers that go with the arrays."""
        cdef Engine* g = self.g
        return {"anchor": g.anchor, "mean_log": g.mean_log, "log_n": g.log_n, "mean_cost": g.mean_cost,
                "code_mean": g.code_mean, "code_n": g.code_n, "waits": g.n_waits}

    def put_numbers(self, dict numbers):
        """Take over what `numbers` gave."""
        cdef Engine* g = self.g
        g.anchor = numbers["anchor"]
        g.mean_log = numbers["mean_log"]
        g.log_n = numbers["log_n"]
        g.mean_cost = numbers["mean_cost"]
        g.code_mean = numbers["code_mean"]
        g.code_n = numbers["code_n"]
        g.n_waits = numbers["waits"]

    def namespace(self, uint32_t number):
        """What is known of a namespace: (cells or None, hedges or None, labels, mean, n)."""
        cdef NamespaceState* ns = &self.g.namespaces[number % NAMESPACES]
        cdef Coded* coded = &self.g.codes[APP * CODES + (number & (CODES - 1))]
        return (
            <bytes>(<char*>ns.cells)[:NB * sizeof(Cell)] if ns.cells is not NULL else None,
            <bytes>(<char*>ns.hedges)[:COUNTS * sizeof(Hedge)] if ns.hedges is not NULL else None,
            ns.labels, coded.mean, coded.n)

    def put_namespace(self, uint32_t number, cells, hedges, double labels, float mean, float n):
        """Take over what `namespace` gave, under this process's number."""
        cdef NamespaceState* ns = &self.g.namespaces[number % NAMESPACES]
        cdef Coded* coded = &self.g.codes[APP * CODES + (number & (CODES - 1))]
        cdef const unsigned char[::1] view
        cdef int b
        if cells is not None:
            view = cells
            if ns.cells is NULL:
                ns.cells = <Cell*>calloc(NB, sizeof(Cell))
            if ns.cells is NULL or view.shape[0] != NB * sizeof(Cell):
                raise MemoryError
            memcpy(ns.cells, &view[0], NB * sizeof(Cell))
        if hedges is not None:
            view = hedges
            if ns.hedges is NULL:
                ns.hedges = <Hedge*>malloc(COUNTS * sizeof(Hedge))
            if ns.hedges is NULL or view.shape[0] != COUNTS * sizeof(Hedge):
                raise MemoryError
            memcpy(ns.hedges, &view[0], COUNTS * sizeof(Hedge))
            for b in range(COUNTS):
                _weigh(&ns.hedges[b], self.g.prior, &self.g.everywhere)
        ns.labels = labels
        coded.mean = mean
        coded.n = n

    def side_rows(self, uint32_t number):
        """The rows of side cells that speak of a namespace."""
        return [engine_namespace_row(self.g, number % NAMESPACES, b) for b in range(COUNTS)]

    def keys(self, int64_t now):
        """Keys that have a history of their own, as an array of the kind `key`."""
        cdef Engine* g = self.g
        cdef uint32_t s, n = 0
        cdef bytearray out
        cdef unsigned char[::1] view
        for s in range(1, g.arena.top):
            if g.arena.slots[s].used and g.trackers[s].key is not NULL:
                n += 1
        n += g.attic.n
        out = bytearray(n * sizeof(SavedKey))
        if n == 0:
            return bytes(out)
        view = out
        n = 0
        for s in range(1, g.arena.top):
            if g.arena.slots[s].used and g.trackers[s].key is not NULL:
                _save_key(g, s, now, <SavedKey*>&view[n * sizeof(SavedKey)])
                n += 1
        for s in range(1, g.attic.top):
            if memoir(&g.attic, s).count:
                n += _save_memoir(g, s, now, <SavedKey*>&view[n * sizeof(SavedKey)])
        return bytes(out[:n * sizeof(SavedKey)])

    def put_keys(self, const unsigned char[::1] keys, int64_t now):
        """Follow these keys, or remember them; how many there was room for."""
        cdef Py_ssize_t i
        cdef int done = 0
        if keys.shape[0] % sizeof(SavedKey):
            raise ValueError(f"keys: {keys.shape[0]} bytes")
        for i in range(0, keys.shape[0], sizeof(SavedKey)):
            done += _restore_key(self.g, now, <const SavedKey*>&keys[i])
        return done

    def tree(self):
        """The published tree as (nodes, low, high), or None."""
        cdef Tree* t = self.g.tree
        if t is NULL:
            return None
        return (<bytes>(<char*>t.nodes)[:t.n * sizeof(TreeNode)], [t.low[d] for d in range(FEATURES)],
                [t.high[d] for d in range(FEATURES)])
