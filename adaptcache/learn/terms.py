"""Where each weight of the stack lies in one flat vector: everyone's, then those of each count bucket and of each stage."""
from __future__ import annotations

from typing import Final

from adaptcache import _core

CONSTANT: Final = _core.TERM_COUNT      # where the constant stands among a model's terms
SPACE: Final = _core.TERM_COUNT + 1
BUCKET: Final = SPACE                   # from here on, the terms of each count bucket
STAGE: Final = BUCKET + _core.BUCKET_COUNT * SPACE
WEIGHTS: Final = STAGE + _core.STAGE_COUNT * SPACE
