"""From the arguments of a call to its key: cachetools' functions, so that keys are interchangeable."""
from cachetools.keys import hashkey, methodkey, typedkey

__all__ = ("hashkey", "methodkey", "typedkey")

# cachetools 8 builds (*args, mark, *sorted items); earlier ones lay the items out flat. The core builds
# the first shape by itself and asks `hashkey` for any other.
_shape = hashkey(a=1)
MARK = _shape[0] if _shape == (_shape[0], ("a", 1)) else None
