"""Real proofs, of few bits: found, checked, and given up at once."""

import threading

import trio

from meshnode.adapters.scrypt_labour import ScryptLabour
from meshnode.adapters.system import SystemEntropy
from protocol.limits import WORK_BITS_MAX
from tests.protocol.samples import BROKER, NETWORK


async def test_what_is_found_is_worth_what_was_asked_for() -> None:
    labour = ScryptLabour(SystemEntropy())
    nonce = await labour.search(NETWORK, BROKER.peer, 2)
    assert await labour.bits(NETWORK, BROKER.peer, nonce) >= 2


async def test_a_search_that_is_given_up_leaves_no_thread() -> None:
    labour = ScryptLabour(SystemEntropy())
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(labour.search, NETWORK, BROKER.peer, WORK_BITS_MAX)
        await trio.testing.wait_all_tasks_blocked()
        (thread,) = set(threading.enumerate()) - before
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(thread.join, 30.0)
    assert not thread.is_alive()
