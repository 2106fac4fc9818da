"""Which of a node's agents a call is answered with, where several could do it.

In virtual time (a MockClock's).
"""

import pytest
import trio

from meshnode.services.bodies import CFP
from protocol.messages import Proposal, Refuse, read_message
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.broker_by_hand import Hand
from tests.meshnode.services.worlds import TextAgent, never, play, start, until


async def met(mesh: SimMesh, *agents: TextAgent) -> Hand:
    """Return a broker by hand with a session to node b, which hosts ``agents``."""
    await start(mesh, a=[], b=agents)
    hand = Hand(mesh)
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)
    return hand


async def proposed(hand: Hand, **fields: object) -> tuple[str, int]:
    """Return agent and price of what ``b`` proposes."""
    raw = await hand.request(CFP, hand.cfp(**fields))
    proposal = read_message(raw, Proposal, network=NETWORK)
    return proposal.agent, proposal.price_mc


def agent(name: str, price_mc: int, **options: object) -> TextAgent:
    return TextAgent(never, name=name, price_mc=price_mc, concurrency_max=1, **options)


def test_of_agents_that_are_free_the_cheapest_answers_and_then_the_first_by_name() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = agent("a", 5), agent("c", 2), agent("b", 2), agent("d", 9)
        assert await proposed(await met(mesh, *agents)) == ("b", 2)

    play(story)


def test_an_agent_that_is_free_answers_before_a_cheaper_one_that_is_not() -> None:
    async def story(mesh: SimMesh) -> None:
        cheap, dear = agent("a", 1), agent("b", 5)
        hand = await met(mesh, cheap, dear)
        offer = await hand.offer()  # by name: of a
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.send, hand.award(offer, agent="a"))
            await until(lambda: cheap.running == 1)
            assert await proposed(hand) == ("b", 5)
            nursery.cancel_scope.cancel()

    play(story)


@pytest.mark.parametrize("fields", [{"price_max_mc": 3}, {"input_bytes": 50}])
def test_an_agent_that_is_busy_answers_what_the_free_one_could_not(
    fields: dict[str, int],
) -> None:
    async def story(mesh: SimMesh) -> None:
        fit, unfit = agent("a", 1), agent("b", 5, input_bytes_max=40)
        hand = await met(mesh, fit, unfit)
        offer = await hand.offer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand.send, hand.award(offer, agent="a"))
            await until(lambda: fit.running == 1)
            assert await proposed(hand, **fields) == ("a", 1)
            nursery.cancel_scope.cancel()

    play(story)


def test_what_no_agent_could_do_is_refused_by_the_one_that_comes_nearest() -> None:
    async def story(mesh: SimMesh) -> None:
        hand = await met(mesh, agent("a", 9), agent("b", 7))
        raw = await hand.request(CFP, hand.cfp(price_max_mc=6))
        refuse = read_message(raw, Refuse, network=NETWORK)
        assert (refuse.reason, refuse.text) == ("price", "the price is 7 mc")

    play(story)
