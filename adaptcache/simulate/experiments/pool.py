"""Processes that work for this one and end with it: when it is interrupted, and when it is killed.

Each holds the reading end of a pipe on which nothing is ever sent. Its end is the sign to stop at once, in the
middle of a cell. They do not hear Ctrl-C themselves, which a terminal sends to all of them: who started them decides.
They are started anew rather than forked, since threads of this process may hold locks at that moment.
"""
from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection


def processors() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(jobs: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_enlist, initargs=(reader,))
    try:
        yield pool
    except BaseException:
        writer.close()      # nobody waits for what they are in the middle of
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _enlist(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_until_the_end, args=(pipe,), daemon=True).start()


def _until_the_end(pipe: Connection) -> None:
    pipe.poll(None)
    os._exit(1)
