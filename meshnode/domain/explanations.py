"""What an explanation of a job holds: as :mod:`.explaining` finds it, for who tells it.

All of it is drawn from the job's journal; what peers wrote stands in it as it came.
"""

from typing import Final, Literal, get_args

import msgspec

from meshnode.domain.facts import Failed, Judged, Ranked
from meshnode.domain.unit_states import UnitState

#: What time goes into.
Spent = Literal[
    "candidates",  # until somebody with room was there
    "proposals",  # until the candidates had answered a call
    "hand_over",  # award and result on their way, inputs being fetched, signatures
    "queue",  # behind others, at the contractor
    "running",
    "checking",
    "failed",  # attempts that came to nothing, and the pauses after them
    "finishing",  # putting the outputs together
]
SPENT: Final[tuple[Spent, ...]] = get_args(Spent)

Why = Literal["only", "price", "time", "tie", "troubled", "unknown"]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a decision took, and why.

    Attributes:
        ranked: The best candidates, the contractor first.
        considered: How many there were; 0 where the journal doesn't say.
        why: ``only`` (there was no other), ``price``, ``time`` (it would be finished
            earlier), ``tie``, ``troubled`` (the others had failed lately), or ``unknown``.
        cheaper_mc: Than the next one; less than nothing if it was dearer.
        sooner_ms: Than the next one.
    """

    ranked: list[Ranked]
    considered: int
    why: Why
    cheaper_mc: int = 0
    sooner_ms: int = 0


class Try(msgspec.Struct, kw_only=True):
    """One attempt at a unit.

    Attributes:
        number: 0 first.
        hedge: It was begun while the one before it was out, and slow.
        by_letter: It was ordered of a node that was away.
        begun_ms: When it was called or awarded, Unix time; likewise what follows.
        called: Who was asked for a proposal.
        offers: Who proposed, for how many millicredits a call, and in what time.
        refusals: Who didn't, with reason and text.
        choice: Whom the decision took.
        awarded_ms: 0 until then.
        peer: The contractor.
        agent: Its agent.
        delivered_ms: When its result came.
        queue_ms: How long it waited there, as the contractor says.
        run_ms: How long it ran, as the contractor says.
        verdict: Of the check.
        check: Which one.
        detail: What it found.
        paid_mc: What was paid; None until then.
        failure: How it failed, if it did.
        ended_ms: 0 while it goes on.
    """

    number: int
    begun_ms: int
    hedge: bool = False
    by_letter: bool = False
    called: list[str] = []
    offers: list[tuple[str, int, int]] = []
    refusals: list[tuple[str, str, str]] = []
    choice: Choice | None = None
    awarded_ms: int = 0
    peer: str = ""
    agent: str = ""
    delivered_ms: int = 0
    queue_ms: int = 0
    run_ms: int = 0
    verdict: str = ""
    check: str = ""
    detail: str = ""
    paid_mc: int | None = None
    failure: Failed | None = None
    ended_ms: int = 0


class Part(msgspec.Struct, kw_only=True):
    """One unit.

    Attributes:
        unit: ``subtask/batch``.
        subtask: Its sub-task.
        calls: Agent calls in it.
        state: How it stands.
        tries: Attempts at it.
        judged: What was last made of its answers, where a job wants to be sure of them.
    """

    unit: str
    subtask: str
    calls: int
    state: UnitState = "waiting"
    tries: list[Try] = []
    judged: Judged | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One sub-task of the plan.

    Attributes:
        subtask: Its id.
        capability: What it needs.
        after: Sub-tasks whose outputs it takes.
        is_map: It calls its agent once for each item.
        units: How many it was cut into; None until its inputs are there.
        calls: In them all.
        checks: Kinds of check that the graph asks for.
        paid_mc: What was paid for it.
    """

    subtask: str
    capability: str
    after: list[str]
    is_map: bool
    units: int | None
    calls: int
    checks: list[str]
    paid_mc: int


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """A sub-task went on with another capability than before.

    Attributes:
        subtask: Its id.
        was: What it needed until then.
        capability: What it needs since.
        code: What the job would have ended with.
        considered: Other capability -> nodes that offered it and fitted.
        after_ms: Since the plan.
        kept: Units of it that were accepted before, and stay.
    """

    subtask: str
    was: str
    capability: str
    code: str
    considered: dict[str, int]
    after_ms: int
    kept: int


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A job, explained.

    Attributes:
        job: Its id.
        name: Its graph's.
        resumes: The job that it goes on with, or empty.
        state: ``running``, ``completed``, ``failed`` or ``cancelled``.
        code: Why, unless completed or running.
        text: For people.
        ending: It is being ended early.
        budget_mc: What might be spent.
        spent_mc: What was.
        reserved_mc: What is promised to awards that are out.
        tokens_max: Model tokens that may be used; 0 for any number.
        tokens_used: What was, or may have been, by awards that are over; 0 without a limit.
        deadline_ms: Unix time.
        elapsed_ms: From the plan to the end, or until now.
        left_ms: Until the deadline; 0 once it has ended.
        events: In its journal.
        kept: Units whose outputs were accepted.
        tasks: The plan, producers first, as it is now.
        patches: How it became that.
        parts: Its units.
        paid_mc: PeerId -> what it was paid.
        time_ms: Where the time went; adds up to ``elapsed_ms``.
        path: The units that the end waited for, the first one first.
    """

    job: str
    name: str
    resumes: str
    state: str
    code: str
    text: str
    ending: bool
    budget_mc: int
    spent_mc: int
    reserved_mc: int
    tokens_max: int
    tokens_used: int
    deadline_ms: int
    elapsed_ms: int
    left_ms: int
    events: int
    kept: int
    tasks: list[Task]
    patches: list[Patch]
    parts: list[Part]
    paid_mc: dict[str, int]
    time_ms: dict[Spent, int]
    path: list[str]
