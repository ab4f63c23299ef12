"""What a value is between processes: an envelope around bytes that are safe to read, whoever wrote them.

`Serializer.dumps` makes them, `Serializer.loads` gives an `Envelope` or an `Unreadable`, never an exception. docs/wire.md has
the format byte by byte. Nothing here knows a server, a cache or a clock. Needs the extra `adaptcache[redis]`.
"""
try:
    import msgspec  # noqa: F401
    import zstandard  # noqa: F401
except ImportError as error:
    raise ImportError('adaptcache.wire needs msgspec and zstandard: pip install "adaptcache[redis]"') from error

from adaptcache.wire.refusal import Unreadable
from adaptcache.wire.registry import Handler, registered
from adaptcache.wire.serializer import Envelope, Serializer
from adaptcache.wire.signing import Signed

__all__ = ["Envelope", "Handler", "Serializer", "Signed", "Unreadable", "registered"]
