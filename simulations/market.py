"""A market of ten thousand agents and a million tasks, on one seed.

What is modelled, and what is left out, stands in :mod:`simulations.market_loop`; who takes
part in :mod:`simulations.market_agents`.  Here a few options become a population, arrivals
that load it as far as was asked, and a result.

``python -m simulations.market --agents 10000 --tasks 1000000 --seed 1 --json``
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Final

import msgspec

from simulations.market_agents import BEHAVIOURS, MIXED, Mix, Trader, draw_traders
from simulations.market_arrivals import Crowd, arrivals
from simulations.market_choice import POLICIES, ByFinish, PolicyMaker
from simulations.market_figures import MarketResult
from simulations.market_ledger import check_ledger
from simulations.market_loop import Market, Rules

#: Agents that there are for each broker, unless the number of brokers is given.
_AGENTS_PER_BROKER: Final = 10

#: ``on_progress(ended, tasks)``.
Progress = Callable[[int, int], None]


class Unsound(AssertionError):
    """A market broke a rule that must hold in every one."""


@dataclass(frozen=True, slots=True)
class MarketOptions:
    """What a market is made of.

    Attributes:
        agents: How many.
        tasks: How many come.
        seed: Fixes everything.
        brokers: How many; 0 for one for every ten agents.
        capabilities: Kinds of work; each agent offers one.
        load: Work that comes, as a share of what the agents could do without a pause.
        crowd: A flash crowd on top of that.
        mix: Behaviours and their shares.
        policy: Makes who chooses; see :data:`simulations.market_choice.POLICIES`.
        rules: What holds for everybody.
    """

    agents: int = 10_000
    tasks: int = 1_000_000
    seed: int = 0
    brokers: int = 0
    capabilities: int = 20
    load: float = 0.5
    crowd: Crowd | None = None
    mix: Mix = MIXED
    policy: PolicyMaker = ByFinish
    rules: Rules = field(default_factory=Rules)


def simulate_market(
    options: MarketOptions, *, on_progress: Progress | None = None
) -> MarketResult:
    """Play a market to the end of its last task.

    Args:
        options: What it is made of.
        on_progress: Told after each window how many tasks have ended, of how many.

    Raises:
        Unsound: Money came from nowhere, or went there.
    """
    seed = f"{options.seed}/market"
    capabilities = min(options.capabilities, options.agents)
    traders = draw_traders(
        Random(f"{seed}/traders"), options.agents, capabilities=capabilities, mix=options.mix
    )
    brokers = options.brokers or max(1, options.agents // _AGENTS_PER_BROKER)
    policy = options.policy(Random(f"{seed}/policy"))
    market = Market(traders, brokers=brokers, rules=options.rules, policy=policy, seed=seed)
    counter = market.counter

    def tell() -> None:
        if on_progress is not None:
            on_progress(counter.accepted + sum(counter.failures.values()), options.tasks)

    rates_per_s = _rates_per_s(traders, capabilities, options.load)
    coming = arrivals(rates_per_s, brokers=brokers, seed=seed, crowd=options.crowd)
    market.run(islice(coming, options.tasks), on_window=tell)
    if troubles := list(check(market)):
        raise Unsound("\n  ".join([f"seed {options.seed}", *troubles]))
    return counter.result(
        market.contractors,
        labels=(policy.name, options.seed, brokers),
        elapsed_s=market.now_s,
        digest=market.digest(),
    )


def check(market: Market) -> list[str]:
    """Return what doesn't add up in a market that has ended."""
    counter = market.counter
    ended = counter.accepted + sum(counter.failures.values())
    troubles = list(
        check_ledger(
            market.ledger, market.brokers, market.contractors, accepted=counter.accepted
        )
    )
    if ended != counter.arrived:
        troubles.append(f"{counter.arrived} tasks came and {ended} ended")
    troubles += [
        f"broker {broker.number} believes that {sum(broker.load.values())} units are out"
        for broker in market.brokers
        if broker.load
    ]
    return troubles


def _rates_per_s(traders: Sequence[Trader], capabilities: int, load: float) -> list[float]:
    """Return for each capability the tasks a second that load its agents by ``load``."""
    rates_per_s = [0.0] * capabilities
    for trader in traders:
        rates_per_s[trader.capability] += load * trader.calls_per_s
    return rates_per_s


# --- command line -----------------------------------------------------------------


def _options(arguments: Sequence[str] | None) -> tuple[MarketOptions, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m simulations.market", description="Simulate a market of agents."
    )
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--brokers", type=int, default=0, help="0: one for every ten agents")
    parser.add_argument("--load", type=float, default=0.5, help="of what the agents could do")
    parser.add_argument("--policy", choices=sorted(POLICIES), default=ByFinish.name)
    parser.add_argument(
        "--mix", default="", help="behaviours and shares, such as honest=0.6,lying=0.4"
    )
    parser.add_argument("--crowd", action="store_true", help="a flash crowd in the middle")
    parser.add_argument("--json", action="store_true", help="everything, as one object")
    given = parser.parse_args(arguments)
    try:
        mix = _mix(given.mix)
    except (KeyError, ValueError) as exc:
        parser.error(f"--mix: {exc}; behaviours are {', '.join(BEHAVIOURS)}")
    options = MarketOptions(
        agents=given.agents,
        tasks=given.tasks,
        seed=given.seed,
        brokers=given.brokers,
        load=given.load,
        crowd=Crowd() if given.crowd else None,
        mix=mix,
        policy=POLICIES[given.policy],
    )
    return options, given.json


def _mix(text: str) -> Mix:
    if not text:
        return MIXED
    pairs = (part.partition("=") for part in text.split(","))
    return [(BEHAVIOURS[name.strip()], float(share)) for name, _, share in pairs]


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate a market of agents and print what came of it."""
    options, as_json = _options(arguments)
    result = simulate_market(options)
    figures = msgspec.to_builtins(result)
    if not as_json:
        del figures["windows"]
    text = msgspec.json.format(msgspec.json.encode(figures), indent=2)
    sys.stdout.write(f"{text.decode()}\n")


if __name__ == "__main__":
    main()
