"""A process that commits and says so, until it is killed (see test_sqlite_store.py).

Each worker appends to its own log and puts the same number into a table, in one
commit; when the commit returns, it writes ``<worker> <seq>`` to standard output, at
once and unbuffered.  It goes on from where an earlier process was killed.
"""

import os
import sys
from pathlib import Path

import trio

from meshnode.adapters.sqlite_store import SqliteStore, open_store
from meshnode.ports import Append, Put

WORKERS = 4


async def work(store: SqliteStore, worker: int) -> None:
    """Commit number after number for ever."""
    seq = len(await store.log(f"log{worker}"))
    while True:
        value = b"%d" % seq
        await store.commit(Append(f"log{worker}", seq, value), Put("last", f"{worker}", value))
        os.write(1, f"{worker} {seq}\n".encode())
        seq += 1


async def main(path: Path) -> None:
    """Run the workers on the store at ``path``."""
    async with open_store(path) as store, trio.open_nursery() as nursery:
        for worker in range(WORKERS):
            nursery.start_soon(work, store, worker)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
