"""Calls that are hard to tell apart, for the tests of decorated functions."""
from hypothesis import strategies as st


class Same:
    """Equal to whatever has the same number, with the hash of that number."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return hash(self.number)

    def __eq__(self, other):
        return self.number == getattr(other, "number", other)

    def __repr__(self):
        return f"Same({self.number})"


class Text(str):
    """A str that is not exactly one."""


NAN = float("nan")
# Equal with other types, equal and another object, equal hashes and different, never equal, with no hash at all.
ARGUMENTS = [
    0, 1, True, 1.0, 1.5, -1, -2, 10**30, "a", Text("a"), "".join(["a", "b"]), "ab", "1", b"a", None, (), (1,), (1.0,), ("a", 1),
    hash(()), hash((1.5,)), hash((1, 1)), hash(("a",)), 2**61 - 1, NAN, float("nan"), Same(1), Same(1.5), Same(hash(())),
    frozenset({1}), [], {},
]
CALLS = st.tuples(
    st.lists(st.sampled_from(ARGUMENTS), max_size=3),
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", Text("a")]), st.sampled_from(ARGUMENTS)), max_size=3),
)
