"""Markets played on all cores, each by the name of its policy, its terms and its seed."""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from simulations.runs.workers import cores
from simulations.trust.baselines import AtRandom, PlainBeta, Voting
from simulations.trust.design import Design
from simulations.trust.eigentrust import EigenTrust
from simulations.trust.market import Course, Terms, play
from simulations.trust.policy import PolicyMaker
from simulations.trust.sarmenta import Credibility

#: What is usually done.
BASELINES: Final[Mapping[str, PolicyMaker]] = {
    "random": AtRandom,
    "plain Beta": PlainBeta,
    "vote of 3": partial(Voting, voters=3),
    "vote of 5": partial(Voting, voters=5),
    "EigenTrust": EigenTrust,
    "Sarmenta": Credibility,
}
POLICIES: Final[Mapping[str, PolicyMaker]] = {
    **BASELINES,
    "EigenTrust, trusted only": partial(EigenTrust, untrusted=0.0),
    "economy": partial(Design, assurance="economy"),
    "assured": partial(Design, assurance="assured"),
}


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One market.

    Attributes:
        cell: What it is one seed of; for whoever reads the courses.
        policy: Of :data:`POLICIES`.
        terms: Of the market.
        seed: Fixes everything.
    """

    cell: str
    policy: str
    terms: Terms
    seed: int


def play_trial(trial: Trial) -> Course:
    """Play one here."""
    return play(trial.terms, POLICIES[trial.policy], seed=trial.seed)


def play_trials(trials: Sequence[Trial], *, workers: int = 0) -> Iterator[tuple[Trial, Course]]:
    """Play them and yield what came of each, as they end.

    Args:
        trials: What is played.
        workers: Processes; 0 for one on each core, 1 for this one.
    """
    if (workers or cores()) == 1:
        for trial in trials:
            yield trial, play_trial(trial)
        return
    # Programs of their own and not forks: nothing of the parent decides what they do.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers or cores(), _deafen) as pool:
        yield from pool.imap_unordered(_played, trials, chunksize=2)


def _deafen() -> None:
    """Leave Ctrl-C to the parent, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _played(trial: Trial) -> tuple[Trial, Course]:
    return trial, play_trial(trial)
