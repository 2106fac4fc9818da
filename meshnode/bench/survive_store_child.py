"""Write to a store until killed, and say what is durable.

``python -m meshnode.bench.survive_store_child FILE FIRST`` commits receipts ``FIRST``,
``FIRST + 1``, … several at once, and prints the number of each once its commit has returned.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from meshnode.adapters.sqlite_store import open_store
from meshnode.ports import Append, Put

#: Commits that are under way at once: they share an fsync.
_AT_ONCE = 8
_BYTES = 700


async def write(file: Path, first: int) -> None:
    """See the module; returns when nobody reads."""
    async with open_store(file) as store, trio.open_nursery() as nursery:
        numbers = iter(range(first, sys.maxsize))

        async def writer(log: str) -> None:
            seq = len(await store.log(log))
            for number in numbers:
                row = f"{number:012}".encode().ljust(_BYTES, b".")
                await store.commit(Put("receipt", f"{number:012}", row), Append(log, seq, row))
                seq += 1
                os.write(1, b"%d\n" % number)

        for part in range(_AT_ONCE):
            nursery.start_soon(writer, f"log/{part}")


def main(arguments: Sequence[str]) -> None:
    """Write what the arguments say."""
    trio.run(write, Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
