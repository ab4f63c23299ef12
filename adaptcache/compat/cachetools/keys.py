"""`cachetools.keys`, which are what our own keys are too."""
from cachetools.keys import hashkey, methodkey, typedkey, typedmethodkey

__all__ = ("hashkey", "methodkey", "typedkey", "typedmethodkey")

# What stands between positional and keyword arguments is a class, and pickled keys look for it in this module where it
# is put in place of cachetools'.
_mark = hashkey(a=1)[0]
if isinstance(_mark, type):
    globals()[_mark.__name__] = _mark
