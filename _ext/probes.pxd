"""USDT call sites; see probes.h."""
cdef extern from "probes.h" nogil:
    void AC_HIT(long long hash) noexcept
    void AC_MISS(long long hash) noexcept
    void AC_INSERT(long long hash) noexcept
    void AC_EVICT(long long hash) noexcept
    void AC_EXPIRE(long long hash, long long at) noexcept
    void AC_PREMATURE(long long hash) noexcept
    void AC_MODEL_PUBLISHED(long long n) noexcept
    void AC_GUARD_TRIPPED(long long n) noexcept
