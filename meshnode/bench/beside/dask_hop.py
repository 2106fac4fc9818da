"""Dask distributed: a trivial function mapped over many items, each a task of its own.

A scheduler in this process, as ``LocalCluster`` starts it, and so many worker processes of
one thread each.  Nothing is signed, encrypted or kept on a disk, and nobody is authenticated.
"""

import asyncio
import logging
import sys
from time import perf_counter_ns

from distributed import Client, LocalCluster

from meshnode.bench.beside.turns import TEXT, check, take_turns


def turned(text: str) -> str:
    """Do what the stub agent does: give back what is given, turned by one."""
    return text[1:] + text[:1]


async def _main() -> None:
    logging.disable(logging.CRITICAL)
    workers = int(sys.argv[1])
    async with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            asynchronous=True,
        ) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        await client.wait_for_workers(workers)
        turns = 0

        async def several(count: int) -> list[int]:
            nonlocal turns
            turns += 1
            texts = [f"{turns} {number} {TEXT}" for number in range(count)]
            begun_ns = perf_counter_ns()
            results = await client.gather(client.map(turned, texts, pure=False))
            taken_ns = perf_counter_ns() - begun_ns
            check(results, [turned(text) for text in texts])
            return [taken_ns]

        await take_turns(_readline, several=several)


async def _readline() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main())
