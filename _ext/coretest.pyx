# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Wrappers through which the tests reach the structures; built with ADAPTCACHE_TESTS=1 only.

Each method is one call of the structure's own function. Nothing here computes.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

cimport adaptive as c_adaptive
from arena cimport NIL as _NIL, Arena as CArena, arena_free, arena_give, arena_init, arena_reserve, arena_take
from belady cimport (Belady as CBelady, belady_free, belady_hit, belady_init, belady_insert, belady_remove,
                     belady_victim)
from bins cimport NB as _NB, bin_of as c_bin_of, edge as c_edge
from density cimport AGES as _AGES, KINDS as _KINDS, LAW, age_bin, age_edge as c_age_edge, density_values, kind_of as c_kind_of
from ghosts cimport (GHOST_LISTS as _GHOST_LISTS, Ghosts as CGhosts, ghosts_clear, ghosts_find, ghosts_free, ghosts_full,
                     ghosts_init, ghosts_list, ghosts_n, ghosts_oldest, ghosts_pop, ghosts_push, ghosts_remove,
                     ghosts_reserve, ghosts_sound)
from ilist cimport IList as CList, ilist_push_front, ilist_sound, ilist_unlink
from policy cimport Policy as CPolicy
from record cimport Record as CRecord, count_bucket as c_count_bucket, count_up as c_count_up, octave as c_octave, \
    record_start, record_touch
from ring cimport Event, Ring as CRing, ring_free, ring_init, ring_pop, ring_push
from sketch cimport (Sketch as CSketch, sketch_add, sketch_clear, sketch_count, sketch_fit, sketch_free, sketch_init, sketch_reserve)
from table cimport (Table as CTable, table_first, table_free, table_init, table_insert, table_next, table_remove,
                    table_reserve, table_tag)
from trials cimport (Trials as CTrials, _trials_thin, trials_clear, trials_free, trials_hear, trials_init, trials_mixed, trials_reserve, trials_scale,
                     trials_sound)
from wheel cimport (Wheel as CWheel, wheel_cancel, wheel_free, wheel_init, wheel_next, wheel_pop, wheel_reserve,
                    wheel_schedule, wheel_sound)

NIL = _NIL
NB = _NB
NEVER = INT64_MAX
GHOST_LISTS = _GHOST_LISTS
AGES = _AGES
KINDS = _KINDS

def edge(int j): return c_edge(j)
def bin_of(int64_t age): return c_bin_of(age)
def count_up(uint8_t c, uint32_t noise): return c_count_up(c, noise)
def count_bucket(uint8_t c): return c_count_bucket(c)
def octave(double x): return c_octave(x)
def age_edge(int b): return c_age_edge(b)
def kind_of(uint32_t count, int gap): return c_kind_of(count, gap)


cdef class Arena:
    cdef CArena a

    def __cinit__(self, uint32_t cap):
        if arena_init(&self.a, cap) < 0:
            raise MemoryError

    def __dealloc__(self):
        arena_free(&self.a)

    def take(self): return arena_take(&self.a)
    def give(self, uint32_t s): arena_give(&self.a, s)
    def reserve(self, uint32_t cap): return arena_reserve(&self.a, cap)
    def used(self, uint32_t s): return bool(self.a.slots[s].used)

    @property
    def n(self): return self.a.n

    @property
    def cap(self): return self.a.cap


cdef class IList:
    """A list over an arena of its own."""
    cdef CArena a
    cdef CList l

    def __cinit__(self, uint32_t cap):
        memset(&self.l, 0, sizeof(CList))
        if arena_init(&self.a, cap) < 0:
            raise MemoryError

    def __dealloc__(self):
        arena_free(&self.a)

    def push(self):
        cdef uint32_t s = arena_take(&self.a)
        ilist_push_front(&self.a, &self.l, s)
        return s

    def remove(self, uint32_t s):
        ilist_unlink(&self.a, &self.l, s)
        arena_give(&self.a, s)

    def sound(self): return bool(ilist_sound(&self.a, &self.l))

    def items(self):
        """From the newest to the oldest."""
        cdef uint32_t s = self.l.head
        out = []
        while s != _NIL:
            out.append(s)
            s = self.a.slots[s].next
        return out


cdef class Table:
    cdef CTable t

    def __cinit__(self, uint32_t expected=0, salt=None):
        if table_init(&self.t, expected) < 0:
            raise MemoryError
        if salt is not None:
            self.t.salt.a, self.t.salt.b = salt

    def __dealloc__(self):
        table_free(&self.t)

    def reserve(self): return table_reserve(&self.t)
    def insert(self, int64_t hash, uint32_t slot): table_insert(&self.t, hash, slot)
    def remove(self, int64_t hash, uint32_t slot): table_remove(&self.t, hash, slot)

    def tag(self, int64_t hash): return table_tag(&self.t, hash)

    def cells(self):
        """Of each cell the slot and the tag; NIL where it is empty."""
        return [(self.t.cells[i].slot, self.t.cells[i].tag) for i in range(<int>(self.t.mask + 1))]

    def slots(self, int64_t hash):
        """Every candidate for a hash, in the order of probing."""
        cdef uint32_t at = 0, tag = table_tag(&self.t, hash), s = table_first(&self.t, tag, &at)
        out = []
        while s != _NIL:
            out.append(s)
            s = table_next(&self.t, tag, &at)
        return out

    @property
    def n(self): return self.t.n

    @property
    def size(self): return self.t.mask + 1

    @property
    def version(self): return self.t.version


cdef class Ghosts:
    cdef CGhosts g

    def __cinit__(self):
        if ghosts_init(&self.g) < 0:
            raise MemoryError

    def __dealloc__(self):
        ghosts_free(&self.g)

    def reserve(self, uint32_t n): return ghosts_reserve(&self.g, n)
    def full(self): return bool(ghosts_full(&self.g))
    def find(self, int64_t hash): return ghosts_find(&self.g, hash)
    def list(self, uint32_t s): return ghosts_list(&self.g, s)
    def push(self, int64_t hash, int which, double weight): return ghosts_push(&self.g, hash, which, weight)
    def remove(self, uint32_t s): ghosts_remove(&self.g, s)
    def oldest(self, int which): return ghosts_oldest(&self.g, which)
    def pop(self, int which): ghosts_pop(&self.g, which)
    def clear(self): ghosts_clear(&self.g)
    def sound(self): return bool(ghosts_sound(&self.g))
    def weight(self, uint32_t s): return self.g.weights[s]
    def total(self, int which): return self.g.total[which]

    @property
    def n(self): return ghosts_n(&self.g)


cdef class Sketch:
    cdef CSketch k

    def __cinit__(self, uint64_t salt=0):
        if sketch_init(&self.k, salt) < 0:
            raise MemoryError

    def __dealloc__(self):
        sketch_free(&self.k)

    def reserve(self, uint32_t keys): return sketch_reserve(&self.k, keys)
    def fit(self, uint32_t keys): sketch_fit(&self.k, keys)
    def add(self, int64_t hash): sketch_add(&self.k, hash)
    def count(self, int64_t hash): return sketch_count(&self.k, hash)
    def clear(self): sketch_clear(&self.k)

    @property
    def blocks(self): return self.k.blocks

    @property
    def additions(self): return self.k.additions

    @property
    def aligned(self): return <size_t>self.k.words % 64 == 0


cdef class Wheel:
    cdef CWheel w

    def __cinit__(self, int64_t base, uint32_t cap):
        wheel_init(&self.w, base)
        if wheel_reserve(&self.w, cap) < 0:
            raise MemoryError

    def __dealloc__(self):
        wheel_free(&self.w)

    def reserve(self, uint32_t cap): return wheel_reserve(&self.w, cap)
    def schedule(self, uint32_t s, int64_t when): wheel_schedule(&self.w, s, when)
    def cancel(self, uint32_t s): wheel_cancel(&self.w, s)
    def pop(self, int64_t now): return wheel_pop(&self.w, now)
    def next(self): return wheel_next(&self.w)
    def sound(self): return bool(wheel_sound(&self.w))

    @property
    def n(self): return self.w.n


cdef class Ring:
    """Events are known by their hash here."""
    cdef CRing r

    def __cinit__(self, uint32_t size):
        if ring_init(&self.r, size) < 0:
            raise MemoryError

    def __dealloc__(self):
        ring_free(&self.r)

    def push(self, int64_t hash): ring_push(&self.r).hash = hash

    def pop(self):
        cdef Event* e = ring_pop(&self.r)
        return None if e is NULL else e.hash

    @property
    def lost(self): return self.r.lost


cdef class Record:
    cdef CRecord r

    def start(self, int64_t now, double size, double cost): record_start(&self.r, now, size, cost, 0)
    def touch(self, int64_t now): record_touch(&self.r, now)

    @property
    def last(self): return self.r.last

    @property
    def gaps(self): return self.r.gap1, self.r.gap2

    @property
    def count(self): return self.r.count

    @property
    def classes(self): return self.r.size_class, self.r.cost_class


cdef class Belady:
    cdef CBelady b

    def __cinit__(self, uint32_t slots):
        if belady_init(&self.b, slots) < 0:
            raise MemoryError

    def __dealloc__(self):
        belady_free(&self.b)

    def insert(self, uint32_t s, int64_t next_use): belady_insert(&self.b, s, next_use)
    def hit(self, uint32_t s, int64_t next_use): belady_hit(&self.b, s, next_use)
    def remove(self, uint32_t s): belady_remove(&self.b, s)
    def victim(self): return belady_victim(&self.b)
    def next_use(self, uint32_t s): return self.b.next_use[s]

    @property
    def n(self): return self.b.n


cdef class Trials:
    """With the density that they teach."""
    cdef CTrials t

    def __cinit__(self, double entries, uint64_t salt=0):
        if trials_init(&self.t, entries, salt) < 0:
            raise MemoryError

    def __dealloc__(self):
        trials_free(&self.t)

    def reserve(self, uint32_t slots): return trials_reserve(&self.t, slots)
    def hear(self, int64_t hash, int kind, uint32_t count, uint32_t now):
        trials_hear(&self.t, trials_mixed(&self.t, hash), <uint8_t>kind, count, now)

    def thin(self): _trials_thin(&self.t)
    def scale(self, double entries): trials_scale(&self.t, entries)
    def clear(self): trials_clear(&self.t)
    def sound(self): return bool(trials_sound(&self.t))
    def make(self): density_values(&self.t.density)
    def bin(self, uint32_t age): return age_bin(&self.t.density, age)
    def teach(self, int kind, int b, float risk, float came):
        cdef int row
        for row in (kind, _KINDS):
            self.t.density.risk[row * _AGES + b] += risk
            self.t.density.risk[row * _AGES + b + 1] -= risk
            self.t.density.came[row * _AGES + b] += came

    def risk(self, int kind):
        """How many got to each bin."""
        return [sum(self.t.density.risk[kind * _AGES + i] for i in range(b + 1)) for b in range(_AGES)]

    def came(self, int kind): return [self.t.density.came[kind * _AGES + b] for b in range(_AGES)]
    def value(self, int kind): return [self.t.density.value[kind * _AGES + b] for b in range(_AGES)]
    def law(self, int kind): return [LAW[kind * _AGES + b] for b in range(_AGES)]

    @property
    def weight(self): return self.t.density.weight

    @property
    def n(self): return self.t.n

    @property
    def held(self): return self.t.n_held[0], self.t.n_held[1]

    @property
    def way(self): return self.t.way


cdef class Adaptive:
    """The policy over an arena of its own. now: requests that it is to believe have been."""
    cdef CArena a
    cdef CPolicy p

    def __cinit__(self, double capacity, uint32_t slots, uint32_t now=0):
        memset(&self.p, 0, sizeof(CPolicy))
        self.p.capacity = capacity
        if arena_init(&self.a, slots) < 0 or c_adaptive.bind(&self.p) < 0 or self.p.reserve(&self.p, slots) < 0:
            raise MemoryError
        (<c_adaptive.Adaptive*>self.p.own).now = now

    def __dealloc__(self):
        arena_free(&self.a)
        if self.p.own is not NULL:
            self.p.free(&self.p)

    def insert(self, int64_t hash):
        cdef uint32_t s = arena_take(&self.a)
        self.a.slots[s].hash = hash
        self.p.on_insert(&self.p, &self.a, s)
        return s

    def remove(self, uint32_t s, bint evicted):
        self.p.on_remove(&self.p, &self.a, s, evicted)
        arena_give(&self.a, s)

    def coming(self, int64_t hash): self.p.on_coming(&self.p, &self.a, hash, 1)
    def hit(self, uint32_t s): self.p.on_hit(&self.p, &self.a, s)
    def victim(self): return self.p.victim(&self.p, &self.a)
    def check(self): return bool(self.p.check(&self.p, &self.a))

    @property
    def way(self): return (<c_adaptive.Adaptive*>self.p.own).trials.way

    @property
    def entries(self): return (<c_adaptive.Adaptive*>self.p.own).trials.entries
