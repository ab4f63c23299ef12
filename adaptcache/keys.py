"""From the arguments of a call to its key: cachetools' functions, so that keys are interchangeable."""
from cachetools.keys import hashkey, methodkey, typedkey

__all__ = ("hashkey", "methodkey", "typedkey")
