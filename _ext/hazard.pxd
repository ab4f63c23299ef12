"""Hazard cells, and what they say about an entry that has been idle for a while.

A cell keeps, per bin of idle age, the probability that the next request (p) or a write (q) comes
in that bin, given that nothing came before it. Hazards learn from unfinished waits as well as
from finished ones, so nothing about them is censored. Contexts form a chain from the
key itself to all keys; each is shrunk to its parent by (n p + PARENT p_parent) / (n + PARENT).

`outlook` is the backward dynamic programme over the bins (Bellman; DESIGN section 3):
    V_j = max(0, p + (1 - p - q) V_{j+1} - rent of the bin), costs in units of one miss,
for every link of the chain at once. An expert holds while its V is above zero.
"""
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint8_t, uint16_t
from bins cimport NB, edge

cdef enum:
    WINDOW = 24             # bins that a key's own cell spans, up to twice its break-even time
    HAZARDS = 10            # experts that read hazards
    PARENT = 4

cdef struct Cell:
    float p
    float q
    float n

cdef struct KeyCell:
    uint16_t p[WINDOW]      # units of 1/65535
    uint16_t q[WINDOW]
    uint8_t n[WINDOW]
    uint8_t base            # the absolute bin of the first entry
    uint8_t used

cdef struct Chain:
    Cell* everyone
    Cell* namespace_        # NULL where there is none
    Cell* habit             # count x gap 1
    Cell* habit2            # count x gap 1 x (gap 2 against gap 1)
    KeyCell* key
    Cell* leaf              # of the river tree, NULL until one is published
    float* line             # river's linear hazards of this access, WINDOW from `line_base`; NULL
    int line_base
    float* stacked          # the stack's hazards of this access, WINDOW from `line_base`; NULL
    int bucket              # of the count

cdef struct Outlook:
    double value[HAZARDS]   # > 0: hold
    double back             # probability of a request before the protected window ends
    double ratio            # least expected rent over risk of any horizon within the window
    double* hazards         # NULL, or where to put p and q of each link and bin: [NB][HAZARDS][2]

cdef inline void cell_learn(Cell* c, int y, float limit) noexcept nogil:
    """y: 0 nothing came in this bin, 1 a request, 2 a write."""
    if c.n < limit:
        c.n += 1
    c.p += ((1.0 if y == 1 else 0.0) - c.p) / c.n
    c.q += ((1.0 if y == 2 else 0.0) - c.q) / c.n

cdef inline void key_learn(KeyCell* k, int j, int y, int limit) noexcept nogil:
    cdef int i = j - k.base
    cdef int n
    if i < 0 or i >= WINDOW:
        return
    n = k.n[i]
    if n < limit:
        n += 1
        k.n[i] = <uint8_t>n
    k.p[i] = <uint16_t>(k.p[i] + ((65535 if y == 1 else 0) - <int>k.p[i]) / <double>n + 0.5)
    k.q[i] = <uint16_t>(k.q[i] + ((65535 if y == 2 else 0) - <int>k.q[i]) / <double>n + 0.5)

cdef inline void key_rebase(KeyCell* k, int base) noexcept nogil:
    """Move the window when the key's break-even time moved; what falls outside is forgotten."""
    cdef KeyCell old = k[0]
    cdef int i, j
    if base == k.base:
        return
    for i in range(WINDOW):
        j = i + base - old.base
        if 0 <= j < WINDOW:
            k.p[i] = old.p[j]
            k.q[i] = old.q[j]
            k.n[i] = old.n[j]
        else:
            k.p[i] = 0
            k.q[i] = 0
            k.n[i] = 0
    k.base = <uint8_t>base

cdef inline double root() noexcept nogil:
    """Hazard of a bin of which nothing is known."""
    return 0.05

cdef inline double toward(double p, double n, double parent) noexcept nogil:
    return (n * p + PARENT * parent) / (n + PARENT)

cdef inline double _of_bin(const float* hazards, int i) noexcept nogil:
    """Of an access's own hazards, WINDOW of them: the first and the last stand for what lies beyond."""
    return hazards[0 if i < 0 else (WINDOW - 1 if i >= WINDOW else i)]

cdef inline void outlook(Chain* c, Outlook* o, int j, int top, double start, double breakeven,
                         int64_t window) noexcept nogil:
    """What each link of the chain expects of an entry idle since `start` ns, now in bin `j`.

    `top`: the first bin that is not worth looking at; `start` may lie beyond it, and then nothing is left to wait for.
    `breakeven` in ns; `window`: the protected window in ns, 0 = none.
    """
    cdef double p[HAZARDS]
    cdef double q[HAZARDS]
    cdef double v[HAZARDS]
    cdef double width, pg, qg, leave, low, part, back = 0, rent = 0, stay = 1, ratio = 1e300, product
    cdef double back_in[NB]
    cdef double leave_in[NB]
    cdef Cell* cell
    cdef int k, i, e
    for e in range(HAZARDS):
        v[e] = 0
    for k in range(top - 1, j - 1, -1):
        cell = &c.everyone[k]
        p[0] = toward(cell.p, cell.n, root())
        q[0] = toward(cell.q, cell.n, 0.0)
        p[1] = p[0]
        q[1] = q[0]
        if c.namespace_ is not NULL:
            cell = &c.namespace_[k]
            p[1] = toward(cell.p, cell.n, p[0])
            q[1] = toward(cell.q, cell.n, q[0])
        cell = &c.habit[k]
        p[2] = toward(cell.p, cell.n, p[1])
        q[2] = toward(cell.q, cell.n, q[1])
        cell = &c.habit2[k]
        p[3] = toward(cell.p, cell.n, p[2])
        q[3] = toward(cell.q, cell.n, q[2])
        p[5] = p[3]
        q[5] = q[3]
        if c.line is not NULL:
            p[5] = _of_bin(c.line, k - c.line_base)
        p[6] = p[1]
        q[6] = q[1]
        if c.leaf is not NULL:
            cell = &c.leaf[k]
            p[6] = toward(cell.p, cell.n, p[1])
            q[6] = toward(cell.q, cell.n, q[1])
        p[4] = p[3]
        q[4] = q[3]
        p[7] = p[5]
        q[7] = q[5]
        p[8] = p[6]
        q[8] = q[6]
        if c.key is not NULL:
            i = k - c.key.base
            if 0 <= i < WINDOW and c.key.n[i]:
                pg = c.key.p[i] / 65535.0
                qg = c.key.q[i] / 65535.0
                p[4] = toward(pg, c.key.n[i], p[4])
                q[4] = toward(qg, c.key.n[i], q[4])
                p[7] = toward(pg, c.key.n[i], p[7])
                q[7] = toward(qg, c.key.n[i], q[7])
                p[8] = toward(pg, c.key.n[i], p[8])
                q[8] = toward(qg, c.key.n[i], q[8])
        p[9] = p[4]
        q[9] = q[4]
        if c.stacked is not NULL:
            p[9] = _of_bin(c.stacked, k - c.line_base)
        low = <double>edge(k)
        if k == j:
            low = start if start < <double>edge(k + 1) else <double>edge(k + 1)
        width = (<double>edge(k + 1) - low) / breakeven
        if o.hazards is not NULL:
            for e in range(HAZARDS):
                o.hazards[(k * HAZARDS + e) * 2] = p[e]
                o.hazards[(k * HAZARDS + e) * 2 + 1] = q[e]
        product = 1
        for e in range(HAZARDS):
            product *= p[e] + 1e-6
            leave = p[e] + q[e]
            if leave > 1:
                leave = 1
            # Whoever leaves in this bin does so half way through it, on average.
            v[e] = p[e] + (1 - leave) * v[e] - width * (1 - 0.5 * leave)
            if v[e] < 0:
                v[e] = 0
        # Removals are chosen for their small risk, and so are the estimates that err downward. So the best single word,
        # the stack's, counts half (of the logarithm), and what all links say together the other half; without a
        # stack the key's own link is the best one, and is taken at its word only as far as the others agree.
        if low < window:                    # later bins are no risk, and a power is dear
            back_in[k] = product ** (1.0 / HAZARDS)
            if c.stacked is not NULL:
                back_in[k] = sqrt(back_in[k] * p[9])
            elif back_in[k] < p[4]:
                back_in[k] = p[4]
            leave_in[k] = back_in[k] + q[4]
    # Holding on to age h costs R(h) and avoids the loss with probability P(h). A penalty v on losing
    # asks to hold while max over h of (1 + v) P(h) - R(h) > 0, that is while 1 + v > min R(h) / P(h):
    # through a burst even where nothing is worth holding to the end of the window.
    for k in range(j, top):
        low = <double>edge(k)
        if k == j:
            low = start if start < <double>edge(k + 1) else <double>edge(k + 1)
        if window <= low:
            break
        part = 1
        if window < edge(k + 1):
            part = (window - low) / (<double>edge(k + 1) - low)
        width = (<double>edge(k + 1) - low) * part / breakeven
        leave = leave_in[k] * part
        if leave > 1:
            leave = 1
        rent += stay * width * (1 - 0.5 * leave)
        back += stay * back_in[k] * part
        stay *= 1 - leave
        if rent < ratio * (back + 1e-6):
            ratio = rent / (back + 1e-6)
    for e in range(HAZARDS):
        o.value[e] = v[e]
    o.back = back
    o.ratio = ratio if ratio < 1e30 else 0
