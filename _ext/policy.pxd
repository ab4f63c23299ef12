"""The questions that an eviction policy answers. Each policy is one file that binds them.

A policy sees slot numbers and never an object, so the live cache and the simulator run the same compiled
policy. The owner of the entries asks in this order when a key comes in that is not held:

    on_coming   once; then, while there is no room,
    victim      names a slot, and
    on_remove   it has left, `evicted`; then
    on_insert   the newcomer is held, its hash and weight are known

An entry that is held and overwritten: `weigh` if its weight changes, then `on_hit`. A policy that remembers keys
which it no longer holds knows them by hash: two keys that share one are one key to it. Every newcomer is let in; a
policy that would refuse it makes it the next victim instead.

What is marked optional may be NULL.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from arena cimport Arena
from ilist cimport IList

cdef struct Policy:
    IList order             # of the policies that need but one list
    uint32_t hand
    double capacity         # what may be held, in the unit of weights; INFINITY = no bound
    const double* weights   # the owner's, by slot; NULL: every entry weighs 1
    double cost             # of a miss of the entry that is inserted or overwritten at this moment; below 0 where nobody
                            #   knows, and at any other moment
    double promise          # of what the last `victim` found worth least, whoever it named: hits per request that it is held for,
                            #   by unit of weight; below 0 where the policy does not tell
    uint64_t salt           # so that nobody outside can tell hash collisions in what the policy remembers
    void* own               # what else the policy keeps
    int (*reserve)(Policy*, uint32_t) noexcept nogil     # optional: room for slots below; -1 = memory is out, nothing changed
    void (*on_coming)(Policy*, Arena*, int64_t, double) noexcept nogil   # optional: hash and weight of the newcomer
    void (*on_insert)(Policy*, Arena*, uint32_t) noexcept nogil
    void (*on_hit)(Policy*, Arena*, uint32_t) noexcept nogil
    void (*weigh)(Policy*, Arena*, uint32_t, double) noexcept nogil      # optional: its weight was, until now, so much
    void (*on_remove)(Policy*, Arena*, uint32_t, bint) noexcept nogil    # evicted: by `victim`'s word; else the user's, or it expired
    uint32_t (*victim)(Policy*, Arena*) noexcept nogil   # NIL when nothing is held
    uint32_t (*after)(Policy*, Arena*, uint32_t) noexcept nogil          # a walk over all that is held: NIL begins and ends it
    void (*age)(Policy*, Arena*) noexcept nogil          # optional: halve what is counted of uses
    void (*resize)(Policy*, Arena*) noexcept nogil       # optional: `capacity` has changed; victims are asked for afterwards
    void (*clear)(Policy*, Arena*) noexcept nogil        # optional: nothing is held; forget what was remembered
    const char* (*way)(Policy*, int, uint64_t*) noexcept nogil           # optional: the name of its way of deciding number 0, 1, …, and the
                            #   requests so far that it followed it for; NULL: there is no such way. To be asked every 2**32 requests
    bint (*check)(Policy*, Arena*) noexcept nogil        # every invariant holds, and all of the arena's slots are on the lists
    void (*free)(Policy*) noexcept nogil                 # optional

cdef inline double policy_weight(const Policy* p, uint32_t s) noexcept nogil:
    return p.weights[s] if p.weights is not NULL else 1

cdef inline void policy_answers(
    Policy* p, void (*on_insert)(Policy*, Arena*, uint32_t) noexcept nogil, void (*on_hit)(Policy*, Arena*, uint32_t) noexcept nogil,
    void (*on_remove)(Policy*, Arena*, uint32_t, bint) noexcept nogil, uint32_t (*victim)(Policy*, Arena*) noexcept nogil,
    uint32_t (*after)(Policy*, Arena*, uint32_t) noexcept nogil, bint (*check)(Policy*, Arena*) noexcept nogil,
) noexcept nogil:
    """Bind what every policy has to answer."""
    p.on_insert = on_insert
    p.on_hit = on_hit
    p.on_remove = on_remove
    p.victim = victim
    p.after = after
    p.check = check

cdef inline int policy_room(void** array, size_t bytes) noexcept nogil:
    """One of a policy's own arrays takes so many bytes; -1 = memory is out, nothing changed."""
    cdef void* more = realloc(array[0], bytes)
    if more is NULL:
        return -1
    array[0] = more
    return 0
