"""A job's events as lines for people: when, which unit, who, what.

Pure functions from what ``/api/jobs/JOB/events`` tells.  Whatever peers wrote is plain
text before it is printed.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from meshnode.cli.printing import plain, short
from meshnode.domain.wording import BLAMED, count_of

#: Widths of the columns before what happened.
_UNIT_WIDTH: Final = 18
_WHO_WIDTH: Final = 8
_TEXT_MAX: Final = 300

#: Kinds of event that are about the unit's contractor, and don't name it.
_OF_CONTRACTOR: Final = frozenset({"progressed", "delivered", "verified", "charged"})

Line = Mapping[str, Any]
#: Unit and attempt -> PeerId.
Contractors = dict[tuple[str, int], str]


def event_line(line: Line, who: Contractors | None = None) -> str:
    """Return one line of the API as a line for a person.

    Args:
        line: Of the API.
        who: Unit and attempt -> PeerId of the contractor, as the lines before told; kept up
            to date.
    """
    if "progress" in line:
        told = line["progress"]
        fields = told.get("fields", {})
        why = plain(fields.get("why", ""), size_max=_TEXT_MAX)
        what = f"{told['event']}: {why}" if why else told["event"]
        return _row(told["at_ms"], "", fields.get("unit", ""), "", plain(what))
    unit = line.get("unit") or line.get("subtask") or ""
    what = _TOLD[line["kind"]](line) if line["kind"] in _TOLD else line["kind"]
    again = f" (attempt {line['attempt'] + 1})" if line.get("attempt") else ""
    peer = line.get("peer", "")
    if who is not None and line["kind"] == "awarded":
        who[unit, line["attempt"]] = peer
    elif who is not None and line["kind"] in _OF_CONTRACTOR:
        peer = who.get((unit, line.get("attempt", 0)), "")
    return _row(line["at_ms"], str(line["seq"]), unit, peer, what + again)


def _row(at_ms: int, seq: str, unit: str, peer: str, what: str) -> str:
    second, ms = at_ms // 1000 % 86_400, at_ms % 1000
    at = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{ms:03}"
    return (
        f"{at} {seq:>5}  {plain(unit):{_UNIT_WIDTH}} {short(peer):{_WHO_WIDTH}} {what}".rstrip()
    )


def _planned(line: Line) -> str:
    count = len(line["subtasks"])
    name = f"{plain(line['name'])}: " if line.get("name") else ""
    return f"planned: {name}{count_of(count, 'sub-task')}, at most {line['budget_mc']} mc"


def _replanned(line: Line) -> str:
    went = f"goes on with {plain(line['capability'])} instead of {plain(line['was'])}"
    return f"{went}: {plain(line['code'])}"


def _expanded(line: Line) -> str:
    sizes: list[int] = line["sizes"]
    if sizes == [-1]:
        return "ready: one call"
    return f"ready: {count_of(sum(sizes), 'call')} in {count_of(len(sizes), 'batch')}"


def _called(line: Line) -> str:
    peers = [short(peer) for peer in line["peers"]]
    return f"asked {count_of(len(peers), 'node')} for proposals: {' '.join(peers)}"


def _delivered(line: Line) -> str:
    return f"delivered {line['size']} bytes, for {line['price_mc']} mc, run {line['run_ms']} ms"


def _verified(line: Line) -> str:
    by = f" by {plain(line['check'])}" if line["check"] else ""
    why = f": {plain(line['text'], size_max=_TEXT_MAX)}" if line.get("text") else ""
    return f"checked: {line['verdict']}{by}{why}"


def _judged(line: Line) -> str:
    wanted = line.get("wanted", 0)
    if not line.get("votes"):
        return f"is asked of {count_of(wanted, 'node')}, to be sure"
    sure = f"right at {line.get('posterior_ppm', 0) / 10_000:.1f} %"
    sitting = line.get("sitting")
    if not line.get("outcome") and sitting:
        return f"{sure}: not sure enough, {count_of(len(sitting['seats']), 'judge')} asked"
    if not line.get("outcome"):
        return f"{sure}: not sure enough, another is asked"
    return f"judged: {line['outcome']}, {sure}, by {count_of(len(line['votes']), 'answer')}"


def _failed(line: Line) -> str:
    why = plain(line["text"] or line["code"], size_max=_TEXT_MAX)
    return f"failed, {plain(line['code'])}: {why}; {BLAMED.get(line['blame'], '')}"


def _refused(line: Line) -> str:
    text = f" ({plain(line['text'], size_max=_TEXT_MAX)})" if line.get("text") else ""
    return f"won't: {plain(line['reason'])}{text}"


def _progressed(line: Line) -> str:
    streamed = f", {line['offset']} characters streamed" if line.get("offset") else ""
    return f"{count_of(line['items_done'], 'call')} done{streamed}"


def _ended(line: Line) -> str:
    why = plain(line.get("text") or line.get("code") or "", size_max=_TEXT_MAX)
    return f"the job {line['state']}" + (f": {why}" if why else "")


def _cancelled(line: Line) -> str:
    why = plain(line.get("text") or line["reason"], size_max=_TEXT_MAX)
    return f"the job is to end: {why}"


_TOLD: Final[Mapping[str, Callable[[Line], str]]] = {
    "planned": _planned,
    "replanned": _replanned,
    "expanded": _expanded,
    "called": _called,
    "proposed": lambda line: f"offers {line['price_mc']} mc a call, in {line['eta_ms']} ms",
    "refused": _refused,
    "awarded": lambda line: f"is given it, for at most {line['price_cap_mc']} mc",
    "progressed": _progressed,
    "delivered": _delivered,
    "verified": _verified,
    "judged": _judged,
    "charged": lambda line: f"paid {line['paid_mc']} mc",
    "failed": _failed,
    "cancelled": _cancelled,
    "elected": lambda line: (
        f"{short(line['broker'])} is the job's broker, epoch {line['epoch']}"
    ),
    "done": _ended,
}
