"""zstd, where it helps, and never more out of it than the reader's limit.

A frame says how much it holds, and is refused unread where that is more than the limit, or not said: so bytes that blow up are
never blown up. Contexts are not safe for two threads at once: each thread has its own. This file knows no envelope.
"""
from __future__ import annotations

import threading
from typing import Final

import zstandard

from adaptcache.wire.refusal import Refused

LEVEL: Final = 1      # of three sizes and kinds that were tried, 3 packs 4 % better at best and takes half as long again
WORTH: Final = 0.9      # of the size: what saves less than a tenth is not worth its decompression
_WINDOW: Final = 1 << 23    # bytes that zstd may always ask for; a frame of ours asks for no more than it holds


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.shrink: Final = zstandard.ZstdCompressor(LEVEL)
        self.grow: Final = zstandard.ZstdDecompressor()


_contexts: Final = _Contexts()


def shrunk(body: bytes) -> bytes | None:
    """The body compressed, or None where that is not worth it."""
    small = _contexts.shrink.compress(body)
    return small if len(small) < WORTH * len(body) else None


def grown(body: bytes, limit: int) -> bytes:
    """What was compressed, at most `limit` bytes of it, or Refused."""
    try:
        frame = zstandard.get_frame_parameters(body)
        if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
            raise Refused("damaged")
        if frame.content_size > limit or frame.window_size > max(limit, _WINDOW):
            raise Refused("too large")
        return _contexts.grow.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Refused("damaged") from None
