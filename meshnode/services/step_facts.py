"""Facts that say nothing but what a step said."""

from meshnode.domain.facts import Failed, Replanned
from meshnode.domain.step_kinds import GiveUp, MakeAward, Replan, Stop, Verify


def replanned(step: Replan) -> Replanned:
    """Return the fact of a patch."""
    return Replanned(
        subtask=step.subtask,
        was=step.was,
        capability=step.capability,
        code=step.code,
        considered=dict(step.considered),
    )


def failed(
    step: GiveUp | MakeAward | Stop | Verify,
    *,
    code: str,
    text: str,
    peer: str = "",
    blame_peer: bool = False,
) -> Failed:
    """Return the end of an attempt that came to nothing; nobody is blamed unless said."""
    return Failed(
        unit=step.unit,
        attempt=step.attempt,
        peer=peer,
        code=code,
        text=text[:500],
        blame="peer" if blame_peer else "broker",
    )
