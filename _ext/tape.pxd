"""The tape: what a cache was asked, on its way to a recording.

A fixed ring of notes, one an operation on a sampled key. The cache writes, the recording takes out; nothing here
runs Python, waits, or knows a file. A note holds a keyed hash of the key (SipHash, Aumasson and Bernstein, 2012), from
which nobody without its 128-bit key can tell whether a guess at the key is right.

Keys are sampled by another salted hash, so the histories of those that are in are whole. They stay whole when whoever
takes the notes out is too slow: a full ring lets go of half of the keys, with the notes of theirs that lie in it, and
of no single note of the others. Each note carries the `level` up to which its key survives that, so that a reader can
leave out what was written of keys that were let go of later.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from engine cimport mix64

cdef enum What:
    NOTE_HIT = 0
    NOTE_MISS = 1
    NOTE_SET = 2
    NOTE_LOADED = 3         # a set whose value came from a loader that was timed
    NOTE_DELETE = 4
    NOTE_CLEAR = 5          # of every key; `key` is 0

cdef enum:
    MOST_HALVINGS = 60

cdef struct Note:            # 40 bytes; `adaptcache/tapefile.py` reads them as they lie
    uint64_t key
    int64_t now             # ns
    double size             # < 0: not known
    double ttl              # seconds; 0: none
    float cost              # < 0: not known
    uint16_t ns             # number of the namespace; 0: not known
    uint8_t what
    uint8_t level           # halvings of the sample that the key survives

cdef struct Tape:
    Note* notes
    uint64_t cap            # a power of two
    uint64_t head           # where the next note goes
    uint64_t tail           # the oldest
    uint64_t k0, k1         # of SipHash
    uint64_t salt           # of the sampling
    uint64_t whole          # the sample as it was asked for: salted hashes up to this one
    uint64_t kept           # `whole`, halved so often
    int halved
    uint64_t dropped        # notes let go of with their keys

cdef inline uint64_t _rot(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))

cdef inline void _sip(uint64_t* v, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        v[0] += v[1]
        v[2] += v[3]
        v[1] = _rot(v[1], 13) ^ v[0]
        v[3] = _rot(v[3], 16) ^ v[2]
        v[0] = _rot(v[0], 32)
        v[2] += v[1]
        v[0] += v[3]
        v[1] = _rot(v[1], 17) ^ v[2]
        v[3] = _rot(v[3], 21) ^ v[0]
        v[2] = _rot(v[2], 32)

cdef inline uint64_t siphash(uint64_t k0, uint64_t k1, uint64_t word) noexcept nogil:
    """SipHash-2-4 of one word of eight bytes."""
    cdef uint64_t v[4]
    cdef uint64_t length = <uint64_t>8 << 56
    v[0] = k0 ^ <uint64_t>0x736F6D6570736575
    v[1] = k1 ^ <uint64_t>0x646F72616E646F6D
    v[2] = k0 ^ <uint64_t>0x6C7967656E657261
    v[3] = k1 ^ <uint64_t>0x7465646279746573
    v[3] ^= word
    _sip(v, 2)
    v[0] ^= word
    v[3] ^= length
    _sip(v, 2)
    v[0] ^= length
    v[2] ^= 0xFF
    _sip(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]

cdef inline int tape_init(Tape* t, double sample, uint64_t k0, uint64_t k1, uint64_t salt, uint64_t cap) noexcept nogil:
    memset(t, 0, sizeof(Tape))
    t.k0, t.k1, t.salt = k0, k1, salt
    t.whole = <uint64_t>(sample * 18446744073709549568.0) if sample < 1 else <uint64_t>0xFFFFFFFFFFFFFFFF
    t.kept = t.whole
    t.cap = cap
    t.notes = <Note*>malloc(cap * sizeof(Note))
    return 0 if t.notes is not NULL else -1

cdef inline void tape_free(Tape* t) noexcept nogil:
    free(t.notes)
    t.notes = NULL

cdef inline void _tape_halve(Tape* t) noexcept nogil:
    """Let go of half of the keys, and of what is here of them."""
    cdef uint64_t i, to = t.tail
    t.halved += 1
    t.kept >>= 1
    for i in range(t.tail, t.head):
        if t.notes[i & (t.cap - 1)].level >= t.halved:
            t.notes[to & (t.cap - 1)] = t.notes[i & (t.cap - 1)]
            to += 1
    t.dropped += t.head - to
    t.head = to

cdef inline Note* tape_note(Tape* t, int64_t hash, int64_t now, uint8_t what) noexcept nogil:
    """A new note of a sampled key, blank but for these; NULL when there is nothing to write."""
    cdef uint64_t at = mix64(mix64(<uint64_t>hash ^ t.salt) + t.salt)
    cdef uint8_t level = 0
    cdef Note* n
    if what == NOTE_CLEAR:
        level = MOST_HALVINGS
    elif at > t.kept:
        return NULL
    else:
        while level < MOST_HALVINGS and at <= t.whole >> (level + 1):
            level += 1
    while t.head - t.tail >= t.cap:
        if t.halved >= MOST_HALVINGS:
            t.dropped += 1
            return NULL
        _tape_halve(t)
        if level < t.halved:
            t.dropped += 1
            return NULL
    n = &t.notes[t.head & (t.cap - 1)]
    t.head += 1
    n.key = 0 if what == NOTE_CLEAR else siphash(t.k0, t.k1, <uint64_t>hash)
    n.now = now
    n.size = -1
    n.ttl = 0
    n.cost = -1
    n.ns = 0
    n.what = what
    n.level = level
    return n
