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


# In each: equal ones of other types, equal ones that are other objects, different ones of the same hash.
FAMILIES = [
    [1, True, 1.0, Same(1), 2**61],
    [0, False, 0.0, -0.0, 2**61 - 1, ""],
    ["a", Text("a"), "".join(["a", ""]), b"a", ("a",), hash(("a",))],
    [(), hash(()), Same(hash(())), None],
    [1.5, (1.5,), hash((1.5,)), Same(1.5), hash(((1.5,),))],
    [-1, -2, Same(-1), (1, -1), (1, -2), hash((1, -1))],
    [10**30, 10**30 + 1, int("1" + "0" * 30), float(10**30)],
    [float("nan"), float("nan"), frozenset({1}), frozenset({True})],
    [[], {}, 1],
]


@st.composite
def call_lists(draw, pauses=False):
    """Lists of (positional, named as pairs), of a few arguments so that many calls meet; with `pauses` some are None."""
    families = draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=2))
    pool = [argument for family in families for argument in family]
    argument = st.sampled_from(pool)
    call = st.tuples(
        st.one_of(st.lists(argument, max_size=2), st.lists(argument, min_size=1, max_size=1)),
        st.one_of(st.just([]), st.lists(st.tuples(st.sampled_from(["a", "b", Text("a")]), argument), max_size=2)),
    )
    return draw(st.lists(st.one_of(*[call] * 6, st.none()) if pauses else call, min_size=8, max_size=50))
