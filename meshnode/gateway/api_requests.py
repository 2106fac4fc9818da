"""What a client of the API sends, read strictly: a misspelt field is told, not ignored.

A request that asks for something else than its author meant costs money here, so
nothing in it is skipped: unknown fields and parameters are refused with the nearest
known name, numbers are numbers, and JSON is RFC 8259's (no ``NaN``, no name twice).
"""

import json
import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Final, cast

import msgspec

from meshnode.domain.graph_files import graph_of
from meshnode.errors import InputInvalid
from meshnode.gateway.auth import Refused
from meshnode.node import Terms
from meshnode.ports import JsonValue
from protocol.graph import Likeness, TaskGraph
from protocol.limits import NUMBER_MAX

_SUBMIT: Final = (
    *("graph", "inputs", "budget_mc", "deadline_s", "idempotency_key", "asked"),
    *("hedges_pct", "replans_max", "standbys", "depth_max", "fan_out_max", "subtasks_max"),
    "patience_s",
    "by_letter_s",
    "assurance",
    "lends_golds",
    "tokens_max",
)
_PLAN: Final = ("goal", "files", "inputs", "partial")
_INVITE: Final = ("name", "uses", "expires_s")
_LETTER: Final = ("to", "text", "base64", "subject", "kind", "expires_s")
#: A letter is given up after a week unless said otherwise, seconds.
LETTER_S: Final = 7 * 86_400.0
#: An invite is good for a day unless said otherwise, seconds.
INVITE_S: Final = 86_400.0
#: A pause ends by itself after at most this, unless it has no end, seconds.
PAUSE_S_MAX: Final = 366 * 86_400.0
#: W3C trace context, version 00.
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_COUNT: Final = re.compile(r"[0-9]{1,15}")
_FLAGS: Final = {"1": True, "true": True, "0": False, "false": False}


class BadRequest(Refused):
    """A request that can't be understood."""

    code = "request.invalid"
    status: ClassVar[int] = 400


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that someone wants done."""

    graph: TaskGraph
    inputs: Mapping[str, JsonValue]
    terms: Terms


def read_submission(data: bytes, *, traceparent: str = "") -> Submission:
    """Return the job that the body ``data`` asks for.

    Args:
        data: JSON.
        traceparent: W3C trace context of the request; ignored unless well-formed.

    Raises:
        BadRequest: Not JSON, an unknown or missing field, or one of the wrong type.
        GraphError: The graph has no sense; names the sub-task.
        InputInvalid: A number out of range.
    """
    table = _read_object(data)
    _known(table, _SUBMIT, "field")
    if "graph" not in table:
        raise BadRequest("the body has no 'graph'", hint="see the friendly form of graphs")
    inputs = table.get("inputs", {})
    if not isinstance(inputs, dict):
        raise BadRequest("'inputs' should be an object", hint="name -> JSON value")
    plain = Terms()
    terms = Terms(
        budget_mc=_whole(table.get("budget_mc", plain.budget_mc), "budget_mc"),
        deadline_s=_number(table.get("deadline_s", plain.deadline_s), "deadline_s"),
        idempotency_key=_text(table.get("idempotency_key", ""), "idempotency_key"),
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        asked=_text(table.get("asked", ""), "asked"),
        hedges_pct=_whole(table.get("hedges_pct", plain.hedges_pct), "hedges_pct"),
        standbys=_standbys(table.get("standbys", 0)),
        replans_max=_whole(table.get("replans_max", plain.replans_max), "replans_max"),
        depth_max=_whole(table.get("depth_max", plain.depth_max), "depth_max"),
        fan_out_max=_whole(table.get("fan_out_max", plain.fan_out_max), "fan_out_max"),
        patience_s=_number(table.get("patience_s", plain.patience_s), "patience_s"),
        by_letter_s=_number(table.get("by_letter_s", plain.by_letter_s), "by_letter_s"),
        subtasks_max=_whole(table.get("subtasks_max", plain.subtasks_max), "subtasks_max"),
        assurance=_assurance(table.get("assurance", "")),
        tokens_max=_whole(table.get("tokens_max", plain.tokens_max), "tokens_max"),
        lends_golds=_yes(table.get("lends_golds", False), "lends_golds"),
    )
    return Submission(graph_of(table["graph"], where="graph"), inputs, terms)


def _assurance(value: object) -> str | float:
    if isinstance(value, str):
        return value
    return _number(value, "assurance")


def _standbys(value: object) -> int | tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_text(peer, "standbys") for peer in value)
    return _whole(value, "standbys")


def read_resumption(data: bytes) -> tuple[int | None, float | None]:
    """Return budget and deadline of a job that is resumed; None where nothing is said.

    Raises:
        BadRequest: Not JSON, an unknown field, or one of the wrong type.
    """
    table = _read_object(data) if data else {}
    _known(table, ("budget_mc", "deadline_s"), "field")
    budget, deadline = table.get("budget_mc"), table.get("deadline_s")
    return (
        None if budget is None else _whole(budget, "budget_mc"),
        None if deadline is None else _number(deadline, "deadline_s"),
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """A goal that someone wants planned."""

    goal: str
    files: Sequence[Mapping[str, JsonValue]]
    inputs: Mapping[str, JsonValue]
    partial: bool


def read_wish(data: bytes) -> Wish:
    """Return the goal that the body ``data`` asks to be planned.

    Raises:
        BadRequest: Not JSON, an unknown or missing field, or one of the wrong type.
    """
    table = _read_object(data)
    _known(table, _PLAN, "field")
    if "goal" not in table:
        raise BadRequest("the body has no 'goal'", hint="say in words what is to be done")
    inputs, partial = table.get("inputs", {}), table.get("partial", False)
    files = table.get("files", [])
    if not isinstance(inputs, dict):
        raise BadRequest("'inputs' should be an object", hint="name -> JSON value")
    if not isinstance(partial, bool):
        raise BadRequest("'partial' should be true or false", hint="no quotes")
    if not isinstance(files, list) or not all(_is_file(file) for file in files):
        raise BadRequest("'files' should be a list of objects", hint="with path and text")
    return Wish(_text(table["goal"], "goal"), files, inputs, partial)


@dataclass(frozen=True, slots=True)
class NewInvite:
    """An invite that the owner wants made."""

    name: str
    uses: int
    expires_s: float


def read_new_invite(data: bytes) -> NewInvite:
    """Return the invite that the body ``data`` asks for.

    Raises:
        BadRequest: Not JSON, an unknown field, or one of the wrong type.
    """
    table = _read_object(data)
    _known(table, _INVITE, "field")
    return NewInvite(
        _text(table.get("name", ""), "name"),
        _whole(table.get("uses", 1), "uses"),
        _number(table.get("expires_s", INVITE_S), "expires_s"),
    )


def read_only_text(data: bytes, name: str) -> str:
    """Return the text ``name``, which is all that the body ``data`` holds.

    Raises:
        BadRequest: Not JSON, an unknown field, or no text of that name.
    """
    table = _read_object(data)
    _known(table, (name,), "field")
    return _text(table.get(name), name)


@dataclass(frozen=True, slots=True)
class NewLetter:
    """A letter that the owner writes."""

    to: str
    body: bytes
    subject: str
    kind: str
    expires_s: float


def read_new_letter(data: bytes) -> NewLetter:
    """Return the letter that the body ``data`` holds.

    Raises:
        BadRequest: Not JSON, an unknown or missing field, or one of the wrong type.
    """
    table = _read_object(data)
    _known(table, _LETTER, "field")
    if "to" not in table:
        raise BadRequest("the body has no 'to'", hint="say whom the letter is for")
    if ("text" in table) == ("base64" in table):
        raise BadRequest("the body has no 'text', or two", hint="give text, or base64")
    if "text" in table:
        body, kind = _text(table["text"], "text").encode(), "text/plain"
    else:
        kind = "application/octet-stream"
        try:
            body = a2b_base64(_text(table["base64"], "base64"), strict_mode=True)
        except (NotBase64, ValueError) as exc:
            raise BadRequest(f"'base64' is none: {exc}", hint="RFC 4648, padded") from exc
    return NewLetter(
        to=_text(table["to"], "to"),
        body=body,
        subject=_text(table.get("subject", ""), "subject"),
        kind=_text(table.get("kind", kind), "kind"),
        expires_s=_number(table.get("expires_s", LETTER_S), "expires_s"),
    )


def read_pause(data: bytes) -> float | None:
    """Return for how many seconds the owner wants a pause; None for until he says so.

    Raises:
        BadRequest: Not JSON, an unknown field, or no span of time.
    """
    table = _read_object(data) if data else {}
    _known(table, ("for_s",), "field")
    if "for_s" not in table:
        return None
    for_s = _number(table["for_s"], "for_s")
    if not 0 < for_s <= PAUSE_S_MAX:
        raise BadRequest(
            f"for_s is {for_s:g}: a pause lasts from a moment to a year",
            hint="leave it out to pause until you say otherwise",
        )
    return for_s


def read_payment(data: bytes) -> tuple[int, str]:
    """Return amount and note of the payment that the owner says was made, mc.

    Raises:
        BadRequest: Not JSON, an unknown or missing field, or one of the wrong type.
    """
    table = _read_object(data)
    _known(table, ("amount_mc", "note"), "field")
    if "amount_mc" not in table:
        raise BadRequest("the body has no 'amount_mc'", hint="how much was paid, millicredits")
    return _whole(table["amount_mc"], "amount_mc"), _text(table.get("note", ""), "note")


@dataclass(frozen=True, slots=True)
class NewGolds:
    """Tasks with their right answers, that the owner gives."""

    capability: str
    pairs: Sequence[tuple[JsonValue, JsonValue]]
    like: Likeness


def read_golds(data: bytes) -> NewGolds:
    """Return the golds that the body ``data`` holds.

    Raises:
        BadRequest: Not JSON, an unknown or missing field, or one of the wrong type.
    """
    table = _read_object(data)
    _known(table, ("capability", "golds", "like"), "field")
    golds = table.get("golds")
    if not isinstance(golds, list) or not all(
        isinstance(gold, dict) and gold.keys() == {"inputs", "output"} for gold in golds
    ):
        raise BadRequest("'golds' should be a list", hint="of objects with inputs and output")
    try:
        like = msgspec.convert(table.get("like", {}), Likeness)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"'like' is none: {exc}", hint='such as {"kind": "exact"}') from exc
    pairs = [(gold["inputs"], gold["output"]) for gold in golds]
    return NewGolds(_text(table.get("capability", ""), "capability"), pairs, like)


def _is_file(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"path", "text"}
        and all(isinstance(part, str) for part in value.values())
    )


def read_query(pairs: Sequence[tuple[str, str]], *known: str) -> dict[str, str]:
    """Return the query parameters ``pairs``, of which only ``known`` ones may be there.

    Raises:
        BadRequest: Another one, or one twice.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise BadRequest(f"parameter {name[:60]!r} occurs twice", hint="give it once")
        found[name] = value
    _known(found, known, "parameter")
    return found


def read_count(text: str, name: str) -> int:
    """Return the number that a parameter gives.

    Raises:
        BadRequest: It isn't a whole number from 0 on.
    """
    if not _COUNT.fullmatch(text):
        raise BadRequest(f"{name} should be a number, not {text[:60]!r}", hint="0 or more")
    return int(text)


def read_start(query: Mapping[str, str], last_event_id: str = "") -> int:
    """Return the number of the event from which on a client wants to be told.

    Args:
        query: ``since`` is that number, ``last_seq`` that of the last event that it saw.
        last_event_id: The header of that name, as ``last_seq``: it is what a client that
            was cut off adds to the request that it makes again, and so it counts.

    Raises:
        BadRequest: Both parameters, or no number.
    """
    if last_event_id:
        return read_count(last_event_id, "Last-Event-ID") + 1
    if "last_seq" in query:
        if "since" in query:
            raise BadRequest("since and last_seq say the same", hint="give one of them")
        return read_count(query["last_seq"], "last_seq") + 1
    return read_count(query.get("since", "0"), "since")


def read_flag(text: str, name: str) -> bool:
    """Return whether a parameter says yes.

    Raises:
        BadRequest: It says neither.
    """
    if text not in _FLAGS:
        raise BadRequest(f"{name} should be 1 or 0, not {text[:60]!r}", hint="1 for yes")
    return _FLAGS[text]


# --- pieces -----------------------------------------------------------------------


def _read_object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if rb"\u" in data:  # escapes can hide half of a surrogate pair, which is no text
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as exc:
        raise BadRequest("the body is not UTF-8 text", hint="send JSON in UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        text = "nested too deep" if isinstance(exc, RecursionError) else str(exc)
        raise BadRequest(f"the body is not JSON: {text}", hint="send a JSON object") from exc
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object", hint='such as {"graph": …}')
    return cast("Mapping[str, Any]", value)


def _unique(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} stands twice in one object")
    return table


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def _known(table: Iterable[str], known: Sequence[str], what: str) -> None:
    for name in table:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise BadRequest(
                f"there is no {what} {name[:60]!r}"
                + (f" (did you mean {near[0]!r}?)" if near else ""),
                hint=f"known are: {', '.join(known) or 'none'}",
            )


def _yes(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadRequest(f"{name} should be true or false, not {value!r:.60}", hint="no quotes")
    return value


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(
            f"{name} should be a whole number, not {value!r:.60}", hint="no quotes"
        )
    if not -NUMBER_MAX <= value <= NUMBER_MAX:
        raise InputInvalid(f"{name} is out of range", hint=f"at most {NUMBER_MAX}")
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, float):
        return value
    return float(_whole(value, name))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} should be text, not {value!r:.60}", hint="put it in quotes")
    return value
