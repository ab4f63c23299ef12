# Taping: the tape's handle, which a Store writes to and a recording reads (`adaptcache/recording.py`).
#
# It outlives its store, so that what was noted last can still be written when the cache is gone.

cdef class Taper:
    """A tape.

    key       32 bytes: 16 for the hashes of keys, 8 for the sampling, the rest is not used
    capacity  notes; a power of two
    call      call(False) when half of it is full, call(True) when seven eighths are, each once until somebody takes notes; never
              from within a change of a structure
    """
    cdef Tape t
    cdef object call
    cdef bint called
    cdef bint pressed
    cdef int muted                  # deletes that the user did not ask for are on the way
    cdef uint64_t taken

    def __cinit__(self, double sample, bytes key, uint64_t capacity, call):
        cdef const unsigned char[::1] k = key
        if k.shape[0] < 24 or capacity < 2 or capacity & (capacity - 1):
            raise ValueError("key: 24 bytes or more; capacity: a power of two")
        self.call = call
        if tape_init(&self.t, sample, _word(k, 0), _word(k, 8), _word(k, 16), capacity) < 0:
            raise MemoryError

    def __dealloc__(self):
        tape_free(&self.t)

    @cython.final
    cdef inline int _tell(self) except -1:
        """Call whoever takes notes out, if there is reason to. Runs Python."""
        cdef uint64_t n = self.t.head - self.t.tail
        if n * 2 >= self.t.cap and not (self.called if n * 8 < self.t.cap * 7 else self.pressed):
            return self._call(n * 8 >= self.t.cap * 7)
        return 0

    @cython.final
    cdef int _call(self, bint pressed) except -1:
        call = self.call
        if call is not None:
            self.called = True
            self.pressed = pressed
            call(pressed)
        return 0

    def take(self, uint64_t most):
        """The oldest notes, as bytes of them; they are the caller's from here on."""
        cdef uint64_t n = min(most, self.t.head - self.t.tail)
        # Not looked at by the collector, so that making it calls nobody in.
        cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(n * sizeof(Note)))
        cdef Note* to = <Note*><char*>out
        cdef uint64_t i
        for i in range(n):
            to[i] = self.t.notes[(self.t.tail + i) & (self.t.cap - 1)]
        self.t.tail += n
        self.taken += n
        n = self.t.head - self.t.tail
        self.called = self.called and n * 2 >= self.t.cap
        self.pressed = self.pressed and n * 8 >= self.t.cap * 7
        return out

    def silence(self):
        """Nobody is called any more."""
        self.call = None

    @property
    def waiting(self):
        return self.t.head - self.t.tail

    @property
    def halved(self):
        """How often half of the keys were let go of, since notes came faster than they were taken."""
        return self.t.halved

    @property
    def dropped(self):
        """Notes that went with them."""
        return self.t.dropped

cdef inline uint64_t _word(const unsigned char[::1] k, Py_ssize_t at) noexcept:
    cdef uint64_t w = 0
    cdef int i
    for i in range(8):
        w |= <uint64_t>k[at + i] << (8 * i)
    return w

def sip64(bytes key, uint64_t word):
    """The hash that a tape with this key writes for a key whose Python hash is `word`."""
    cdef const unsigned char[::1] k = key
    return siphash(_word(k, 0), _word(k, 8), word)

def tape_keys(bytes notes):
    """The different keys in notes, as they come (u64), how many halvings each survives (u8), and each note's key by its place there (u32)."""
    cdef Py_ssize_t n = len(notes) // <Py_ssize_t>sizeof(Note), i
    cdef const Note* note = <const Note*><const char*>notes
    cdef uint64_t mask = 16, at
    cdef uint32_t m = 0
    cdef uint32_t* seen             # one more than the place of a key; 0: free
    cdef bytes place = PyBytes_FromStringAndSize(NULL, n * <Py_ssize_t>sizeof(uint32_t))
    cdef bytes keys = PyBytes_FromStringAndSize(NULL, n * <Py_ssize_t>sizeof(uint64_t))
    cdef bytes level = PyBytes_FromStringAndSize(NULL, n)
    cdef uint32_t* p = <uint32_t*><char*>place
    cdef uint64_t* k = <uint64_t*><char*>keys
    cdef uint8_t* l = <uint8_t*><char*>level
    while mask < 2 * <uint64_t>n:
        mask *= 2
    seen = <uint32_t*>calloc(mask, sizeof(uint32_t))
    if seen is NULL:
        raise MemoryError
    mask -= 1
    with nogil:
        for i in range(n):
            at = note[i].key & mask
            while seen[at] and k[seen[at] - 1] != note[i].key:
                at = (at + 1) & mask
            if seen[at] == 0:
                k[m] = note[i].key
                l[m] = note[i].level
                m += 1
                seen[at] = m
            p[i] = seen[at] - 1
    free(seen)
    return keys[:m * sizeof(uint64_t)], level[:m], place
