"""Twitter's cache traces (github.com/twitter/cache-trace): seven columns without a header,

    timestamp (s), anonymized key, key size, value size, client id, operation, TTL (s, 0 if not a write)

    0,q:q:1:8WTfjZU14ee,17,213,4,get,0

Size: key and value. Namespace: the key's leading segments, at most two and never the last. The anonymization
kept them, but not one delimiter for all clusters, so it is the first of `:-/_.|` that half of the first keys
contain. Client: a category. The operations are Twemcache's; all that write a value are sets.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final

import numpy as np

from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import OPS, Block, Faults, Groups
from adaptcache.simulate.formats.fields import Fields, each_different
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

NAME: Final = "twitter"
ALIASES: Final = ("twitter-cache-trace",)
SUFFIXES: Final = (".csv",)
DISORDERLY: Final = False

NAMES: Final = ("get", "gets", "set", "add", "replace", "cas", "append", "prepend", "delete", "incr", "decr")
RIGHT: Final = "seven are wanted: timestamp,key,key size,value size,client id,operation,TTL"
DELIMITERS: Final = ":-/_.|"


def recognises(source: Source) -> bool:
    if not source.is_text or not source.lines:
        return False
    rows = [line.split(",") for line in source.lines[:20]]
    return all(len(row) == 7 and row[5] in NAMES and all(row[at].isdigit() for at in (0, 2, 3, 6)) for row in rows)


def blocks(source: Source) -> Generator[Block, None, None]:
    delimiter = _delimiter([row[1] for row in (line.split(",") for line in source.lines) if len(row) == 7])
    namespaces, clients = Groups(), Groups()
    for text in lines.texts(source):
        table, odd = lines.split(text, ord(","), 7)
        faults = Faults(len(table))
        numbers: dict[str, Column] = {}
        for name, column in (("time", 0), ("key size", 2), ("value size", 3), ("ttl", 6)):
            numbers[name] = _number(faults, name, table.fields[column])
        key, op = table.fields[1], table.fields[5]
        ops = each_different(op, lambda name: OPS[name] if name in NAMES else 255).astype(np.uint8)
        faults.among(ops == 255, lines.say("op", op, f"one of {', '.join(NAMES)}"))
        columns = {
            "key": key.hashes(), "time": numbers["time"], "size": numbers["key size"] + numbers["value size"],
            "op": ops, "ttl": numbers["ttl"], "namespace": namespaces.ids(prefixes(key, delimiter).hashes()),
            "feat_client": clients.ids(table.fields[4].hashes()),
        }
        yield lines.ending(faults.block(source, columns, table.where), lines.wrong_width(source, odd, RIGHT))


def _number(faults: Faults, name: str, fields: Fields) -> Column:
    values, bad = fields.numbers()
    faults.among(bad, lines.say(name, fields, "a number"))
    return values


def _delimiter(keys: list[str]) -> str:
    return next((mark for mark in DELIMITERS if 2 * sum(mark in key for key in keys) > len(keys)), ":")


def prefixes(keys: Fields, delimiter: str) -> Fields:
    """The leading segments of each key: two if it has three or more, one if it has two, else none."""
    past = len(keys.data)
    marks = np.concatenate((np.flatnonzero(keys.data == ord(delimiter)), [past, past]))
    at = np.searchsorted(marks[:-1], keys.start)
    first, second = marks[at], marks[np.minimum(at + 1, len(marks) - 1)]
    end = np.where(second < keys.end, second, np.where(first < keys.end, first, keys.start))
    return Fields(keys.data, keys.start, end)
