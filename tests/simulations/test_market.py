"""A simulated market is the same on one seed, conserves money, and moves as it should."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from simulations.market import MarketOptions, simulate_market
from simulations.market_choice import AtRandom
from simulations.market_figures import MarketResult

ROOT = Path(__file__).parents[2]
SMALL = MarketOptions(agents=200, tasks=4_000, brokers=20, capabilities=4, seed=5)

CHILD = """
import sys
ballast = [[object()] for _ in range(int(sys.argv[1]))]
from simulations.market import simulate_market
from tests.simulations.test_market import SMALL
print(simulate_market(SMALL).digest)
"""


@pytest.fixture(scope="module")
def small() -> MarketResult:
    """The small market, played once."""
    return simulate_market(SMALL)


@pytest.mark.parametrize("hash_seed", [1, 2])
def test_a_seed_gives_the_same_market_in_every_process(
    hash_seed: int, small: MarketResult
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(hash_seed * 377)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == small.digest


def test_another_seed_or_another_policy_gives_another_market(small: MarketResult) -> None:
    others = [replace(SMALL, seed=6), replace(SMALL, policy=AtRandom)]
    digests = {simulate_market(other).digest for other in others}
    assert len(digests | {small.digest}) == 3


def test_a_result_goes_to_json_and_back(small: MarketResult) -> None:
    assert msgspec.json.decode(msgspec.json.encode(small), type=MarketResult) == small
