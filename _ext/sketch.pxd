"""How often, lately: a count-min sketch of four-bit counters, all four of a key in one cache line.

A key's hash picks a block of 64 bytes and in each quarter of it, a row, one of 32 counters; what it was seen is the least
of the four (Cormode, Muthukrishnan: An Improved Data Stream Summary, 2005). It never says too little, until it ages:
after ten additions for each key that it was made for all counters are halved (Einziger, Friedman, Manes: TinyLFU, ACM
Transactions on Storage, 2017). Halving walks: eight blocks at each addition, so that none of them is long.

    h     = mixed(hash xor salt)
    block = h mod blocks
    row i = counter (h >> 44 + 5 i) mod 32 of the block's i-th quarter

It grows by doubling. Each block is copied to the one that may now be asked instead, so nothing is forgotten.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define adaptcache_ones(x) ((int)__builtin_popcountll(x))
    #else
    static int adaptcache_ones(unsigned long long x) { int n = 0; for (; x; x &= x - 1) n++; return n; }
    #endif
    """
    int adaptcache_ones(uint64_t) noexcept nogil

cdef enum:
    SKETCH_LEAST = 16       # blocks
    SKETCH_KEYS = 4         # keys to a block: 32 counters each
    SKETCH_STRIDE = 8       # blocks that are halved at an addition
    SKETCH_SAMPLE = 10      # additions to a key, between halvings

cdef struct Sketch:
    void* memory            # what was allocated; `words` is aligned in it
    uint64_t* words         # eight to a block
    uint64_t blocks         # in use; a power of two
    uint64_t room           # blocks that memory was taken for
    uint64_t additions      # since the last halving, halved with it
    uint64_t swept          # blocks that are halved already; all of them unless a halving is under way
    uint64_t odd            # of the counters that this halving rounds down
    uint64_t salt

cdef inline int sketch_reserve(Sketch* k, uint32_t keys) noexcept nogil:
    """Memory for a sketch of that many keys; -1 when memory is out, and then nothing changed."""
    cdef uint64_t room = SKETCH_LEAST
    cdef void* memory
    cdef uint64_t* words
    while room * SKETCH_KEYS < keys:
        room *= 2
    if room <= k.room:
        return 0
    memory = malloc(<size_t>room * 64 + 63)
    if memory is NULL:
        return -1
    words = <uint64_t*>((<uintptr_t>memory + 63) & ~<uintptr_t>63)
    if k.room:
        memcpy(words, k.words, <size_t>k.blocks * 64)
    free(k.memory)
    k.memory = memory
    k.words = words
    k.room = room
    return 0

cdef inline void sketch_clear(Sketch* k) noexcept nogil:
    """Nothing was seen, and it is small again."""
    k.blocks = k.swept = SKETCH_LEAST
    k.additions = k.odd = 0
    memset(k.words, 0, SKETCH_LEAST * 64)

cdef inline int sketch_init(Sketch* k, uint64_t salt) noexcept nogil:
    memset(k, 0, sizeof(Sketch))
    k.salt = salt
    if sketch_reserve(k, 0) < 0:
        return -1
    sketch_clear(k)
    return 0

cdef inline void sketch_free(Sketch* k) noexcept nogil:
    free(k.memory)
    k.memory = NULL

cdef inline uint64_t _sketch_mixed(const Sketch* k, int64_t hash) noexcept nogil:
    cdef uint64_t h = <uint64_t>hash ^ k.salt
    h = (h ^ (h >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    h = (h ^ (h >> 27)) * <uint64_t>0x94D049BB133111EB
    return h ^ (h >> 31)

cdef inline void _sketch_sweep(Sketch* k, uint64_t blocks) noexcept nogil:
    cdef uint64_t i, end = k.swept + blocks
    if end > k.blocks:
        end = k.blocks
    for i in range(k.swept * 8, end * 8):
        k.odd += adaptcache_ones(k.words[i] & <uint64_t>0x1111111111111111)
        k.words[i] = (k.words[i] >> 1) & <uint64_t>0x7777777777777777
    k.swept = end
    if end == k.blocks:
        # An addition made four counters, which lost a half each where they were odd.
        k.additions = (k.additions - (k.odd >> 2 if k.odd >> 2 < k.additions else k.additions)) >> 1
        k.odd = 0

cdef inline void sketch_fit(Sketch* k, uint32_t keys) noexcept nogil:
    """It is for that many keys now, if that is more than before. There must be room."""
    while k.blocks * SKETCH_KEYS < keys:
        if k.swept < k.blocks:
            _sketch_sweep(k, k.blocks)
        memcpy(k.words + k.blocks * 8, k.words, <size_t>k.blocks * 64)
        k.blocks *= 2
        k.swept = k.blocks

cdef inline void sketch_add(Sketch* k, int64_t hash) noexcept nogil:
    """The key was seen. Beyond 15 it makes no difference."""
    cdef uint64_t h = _sketch_mixed(k, hash)
    cdef uint64_t* block = k.words + (h & (k.blocks - 1)) * 8
    cdef uint64_t* word
    cdef uint64_t full
    cdef uint64_t more = 0
    cdef uint32_t c, row
    cdef int shift
    for row in range(4):
        c = <uint32_t>(h >> (44 + 5 * row)) & 31
        word = block + 2 * row + (c >> 4)
        shift = <int>(c & 15) * 4
        full = ((word[0] >> shift) & 15) == 15
        word[0] += <uint64_t>(1 - full) << shift
        more |= 1 - full
    k.additions += more
    if k.swept < k.blocks:
        _sketch_sweep(k, SKETCH_STRIDE)
    elif k.additions >= k.blocks * (SKETCH_KEYS * SKETCH_SAMPLE):
        k.swept = 0
        _sketch_sweep(k, SKETCH_STRIDE)

cdef inline uint32_t sketch_count(const Sketch* k, int64_t hash) noexcept nogil:
    """How often the key was seen lately, at most 15."""
    cdef uint64_t h = _sketch_mixed(k, hash)
    cdef const uint64_t* block = k.words + (h & (k.blocks - 1)) * 8
    cdef uint32_t c, row, n, least = 15
    for row in range(4):
        c = <uint32_t>(h >> (44 + 5 * row)) & 31
        n = <uint32_t>((block + 2 * row)[c >> 4] >> (<int>(c & 15) * 4)) & 15
        if n < least:
            least = n
    return least
