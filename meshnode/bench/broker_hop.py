"""A contestant of ``bench broker``: one broker, and stub agents on nodes of their own.

A turn is one job, a map whose every item is a sub-task of its own: awarded, run, checked,
charged, and its receipt signed by both sides.  It is over when the job's outputs have been
read and every contractor has acknowledged every receipt, which it does once that is on its
disk.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter_ns

import trio

from meshnode.bench.beside.turns import check, take_turns
from meshnode.bench.contract_hop import ECHO, broker, contractor


async def _main() -> None:
    part, *addresses = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-") as folder:
        home = Path(folder)
        if part == "contractor":
            async with contractor(home) as own:
                await take_turns(_readline, address=own[0])
        else:
            await _brokering(home, addresses)


async def _brokering(home: Path, contractors: Sequence[str]) -> None:
    async with broker(home, contractors) as at_work:
        await at_work.know(ECHO, len(contractors))

        async def several(count: int) -> list[int]:
            begun_ns = perf_counter_ns()
            given, made = await at_work.spread(count)
            taken_ns = perf_counter_ns() - begun_ns
            check(made, [text[1:] + text[:1] for text in given])
            return [taken_ns]

        await take_turns(_readline, several=several)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
