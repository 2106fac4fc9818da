"""What a broker's work with others teaches it of them.

What a fact of a job teaches goes into the commit of that fact, so that both are there or
neither, and counts from then on::

    learned = experience.of_charge(state, attempt, verdict)
    await journal.record(fact, writes=learned.writes)
    experience.took(learned)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from meshnode.domain.attempts import is_no_show
from meshnode.domain.facts import Failed, Verified
from meshnode.domain.job import JobState
from meshnode.domain.trust.golds import Alarm
from meshnode.domain.trust.rules import Kind
from meshnode.domain.units import Attempt
from meshnode.ports import Write
from meshnode.services.reputation import Noted, Reputation
from protocol.keys import digest
from protocol.signing import peek


class _Award(msgspec.Struct, frozen=True):
    """Of an award in this node's own journal: its signature stands there."""

    capability: str


_AWARDS: Final = msgspec.msgpack.Decoder(_Award)


def capability_of(attempt: Attempt) -> str:
    """Return the full capability name that an attempt was awarded for."""
    return _AWARDS.decode(peek(attempt.award).p).capability


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fact teaches, on its way into a commit."""

    noted: tuple[Noted, ...] = ()

    @property
    def writes(self) -> list[Write]:
        """Return what keeps it."""
        return [write for one in self.noted for write in one.writes]


class Experience:
    """See the module."""

    def __init__(self, reputation: Reputation) -> None:
        self.reputation = reputation
        self._alarms: dict[str, Alarm] = {}
        self._tasks: dict[str, int] = {}  # capability -> units that were judged

    # --- what is learned ---

    def of_charge(self, state: JobState, attempt: Attempt, verdict: Verified) -> Learned:
        """Return what it teaches that an answer was there, and what a check found of it.

        What a judgement taught of it isn't taught again.  Of a gold task it is known whether
        the answer is right, whatever the verdict says to who gave it.
        """
        kinds: list[Kind] = ["served"]
        gold = state.required_plan.gold
        if gold is not None and gold.expected:
            kinds.append("gold_failed" if verdict.verdict == "rejected" else "gold_passed")
        elif verdict.verdict == "verified":
            kinds.append("check_passed")
        elif verdict.verdict == "rejected" and not state.units[verdict.unit].settled:
            kinds.append("check_failed")
        return self.of((attempt, kind) for kind in kinds)

    def of_failure(self, attempt: Attempt, fact: Failed) -> Learned:
        """Return what it teaches that an award came to nothing."""
        gone = bool(attempt.award) and is_no_show(fact)
        return self.of([(attempt, "absent")] if gone else [])

    def of(self, lessons: Iterable[tuple[Attempt, Kind]]) -> Learned:
        """Return lessons about who made attempts."""
        return Learned(tuple(self._note(attempt, kind) for attempt, kind in lessons))

    def took(self, learned: Learned) -> None:
        """Take in what is committed."""
        self.reputation.learned(*learned.noted)

    def dropped(self, learned: Learned) -> None:
        """Forget what wasn't committed."""
        self.reputation.dropped(*learned.noted)

    def _note(self, attempt: Attempt, kind: Kind) -> Noted:
        capability, agent = capability_of(attempt), f"{attempt.peer}/{attempt.agent}"
        if kind in {"check_failed", "gold_failed"}:
            self.proven_wrong(capability, agent)
        return self.reputation.note(capability, agent, kind, source=digest(attempt.award))

    # --- alarms ---

    def proven_wrong(self, capability: str, agent: str) -> None:
        """Note that an agent was wrong, before it is learned: several at once are alarming."""
        before = self.reputation.credibility(capability, agent)
        task = self._tasks.get(capability, 0)
        alarm = self._alarms.setdefault(capability, Alarm(self.reputation.rules))
        alarm.proven_wrong(agent, before, task=task)

    def is_alarmed(self, capability: str) -> bool:
        """Tell whether agents that were believed have lately been proven wrong."""
        alarm = self._alarms.get(capability)
        return alarm is not None and alarm.is_raised(self._tasks.get(capability, 0))

    def judged(self, capability: str) -> None:
        """Count a unit that was judged: alarms last for so many."""
        self._tasks[capability] = self._tasks.get(capability, 0) + 1
