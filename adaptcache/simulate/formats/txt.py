"""libCacheSim's plain text: an object id a line, a word or a number, and nothing else.

Only `--format txt` reads words so: one column of words might as well be a csv that lost its header. Lines of
numbers are recognised, as LIRS's traces, which look the same.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final

from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.source import Source

NAME: Final = "txt"
ALIASES: Final = ("libcachesim-txt",)
SUFFIXES: Final = (".txt",)
DISORDERLY: Final = False


def recognises(source: Source) -> bool:
    return False


def blocks(source: Source) -> Generator[Block, None, None]:
    for text in lines.texts(source):
        table, _ = lines.split(text, lines.NEWLINE, 1)
        yield Block({"key": table.fields[0].hashes()}, table.where)
