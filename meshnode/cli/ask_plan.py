"""What ``meshnode ask`` wants done, as a graph: read from a file, or planned by the node."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from meshnode.cli.printing import console, plain, say_json, table

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

_NEAR_SHOWN: Final = 3
_SOON_MS: Final = 100
#: How a value of each type is written behind ``--input NAME=``.
_WRITTEN: Final = {"string": '"…"', "array": "[…]", "object": "{…}"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A goal or a graph, and what goes in.

    Attributes:
        goal: In words, or empty.
        graph: In the friendly form, or None.
        inputs: By name; files are in ``files``.
        partial: Of a goal, leave out what can't be placed.
        budget_mc: Most to spend, if that was said.
    """

    goal: str
    graph: Mapping[str, Any] | None
    inputs: Mapping[str, Any]
    partial: bool = False
    budget_mc: int | None = None


async def planned(
    client: "NodeClient", wanted: Wanted, *, show: bool, as_json: bool
) -> dict[str, Any] | None:
    """Return graph and inputs, planned first if it is a goal; None where it was shown only.

    Raises:
        CommandFailed: The goal can't be served, leaves something out, or costs too much.
    """
    if wanted.graph is not None:
        return {"graph": wanted.graph, "inputs": wanted.inputs}
    inputs = dict(wanted.inputs)
    body = {
        "goal": wanted.goal,
        "files": inputs.pop("files", []),
        "inputs": inputs,
        "partial": wanted.partial,
    }
    plan: dict[str, Any] = await client.call("POST", "/api/plan", body=body)
    if show:
        if as_json:
            say_json(plan)
        else:
            show_plan(plan, budget_mc=wanted.budget_mc)
        return None
    _refuse_missing(plan)
    _refuse_dear(plan, wanted.budget_mc)
    if not as_json:
        steps = ", then ".join(plain(step["capability"]) for step in plan["steps"])
        line = f"understood: {steps} (about {plan['cost_mc']} mc)"
        console(errors=True).print(line, style="dim", markup=False)
    kept = ("graph", "inputs", "asked")  # a node of an older version says no `asked`
    return {name: plan[name] for name in kept if name in plan}


def _refuse_missing(plan: Mapping[str, Any]) -> None:
    from meshnode.cli.failure import CommandFailed

    if not plan["missing"]:
        return
    wants = "; ".join(
        f"{want['field']} of {want['step']}"
        + (f" ({plain(want['description'])})" if want["description"] else "")
        for want in plan["missing"]
    )
    raise CommandFailed(
        f"the goal doesn't say: {wants}",
        hint=f"add --input '{_written(plan['missing'][0])}', or a --file that it is about",
        told="plan.incomplete",
    )


def _written(want: Mapping[str, Any]) -> str:
    """Return how a value for ``want`` is given."""
    return f"{plain(want['field'])}={_WRITTEN.get(want['type'], '…')}"


def _refuse_dear(plan: Mapping[str, Any], budget_mc: int | None) -> None:
    """Refuse what the budget can't pay, before anything is spent on a part of it."""
    from meshnode.cli.failure import CommandFailed

    if budget_mc is not None and plan["cost_mc"] > budget_mc:
        raise CommandFailed(
            f"this takes {plan['cost_mc']} mc or more, and the budget is {budget_mc} mc",
            hint=f"--budget {plan['cost_mc']}, or --plan to see what costs how much",
            told="budget.exceeded",
        )


def show_plan(plan: Mapping[str, Any], *, budget_mc: int | None = None) -> None:
    """Print what was understood, the graph, and what it would take."""
    out = console()
    rows = [
        (
            plain(clause["text"], size_max=60),
            clause["capability"] or "nothing here",
            f"{clause['score']:.2f}",
            ", ".join(
                f"{near['capability']} {near['score']:.2f}"
                for near in clause["nearest"][:_NEAR_SHOWN]
                if near["capability"] != clause["capability"]
            ),
        )
        for clause in plan["clauses"]
    ]
    out.print(table(("the goal says", "which is", "fit", "or else"), rows, right="fit"))
    out.print()
    for line in picture(plan["steps"], multi=_mapped(plan["graph"])):
        out.print(plain(line), markup=False, soft_wrap=True)
    for want in plan["missing"]:
        about = f": {plain(want['description'])}" if want["description"] else ""
        out.print(
            f"missing: --input '{_written(want)}' for {want['step']}{about}",
            markup=False,
            soft_wrap=True,
        )
    for line in _open_fields(plan["optional"]):
        out.print(line, style="dim", markup=False, soft_wrap=True)
    time = _time(plan["time_ms"])
    how = "" if plan["by_meaning"] else "; by words alone: the embedding model isn't installed"
    over = budget_mc is not None and plan["cost_mc"] > budget_mc
    dear = f", more than the budget of {budget_mc} mc" if over else ""
    out.print(f"\ncost about {plan['cost_mc']} mc{dear}; {time}{how}", markup=False)


def _open_fields(optional: list[dict[str, Any]]) -> list[str]:
    """Return a line for each step: what it takes beside what the goal says."""
    fields: dict[str, list[str]] = {}
    for want in optional:
        about = f" ({plain(want['description'])})" if want["description"] else ""
        fields.setdefault(want["step"], []).append(plain(want["field"]) + about)
    return [
        f"{plain(step)} also takes, by --input NAME=…: {', '.join(names)}"
        for step, names in fields.items()
    ]


def _time(time_ms: int) -> str:
    if not time_ms:
        return "how long it takes nobody has measured yet"
    return f"time about {time_ms / 1000:.1f} s" if time_ms >= _SOON_MS else "time under 0.1 s"


def _mapped(graph: Mapping[str, Any]) -> set[str]:
    return {name for name, task in graph["subtasks"].items() if task.get("each")}


def picture(steps: list[dict[str, Any]], *, multi: set[str]) -> list[str]:
    """Return the graph as lines: a step below each of those that it draws from.

    A step that draws from several stands below the last of them, and names the others.
    """
    lines: list[str] = []

    def draw(step: Mapping[str, Any], indent: str, *, last: bool, top: bool) -> None:
        others = step["after"][:-1]
        also = f"  ← also {', '.join(others)}" if others else ""
        name = f"{step['id']}: {step['capability']}"
        each = "  (once for each file)" if step["id"] in multi else ""
        branch = "" if top else ("└─▶ " if last else "├─▶ ")
        lines.append(f"{indent}{branch}{name}{each}{also}")
        below = [other for other in steps if other["after"][-1:] == [step["id"]]]
        deeper = indent if top else indent + ("    " if last else "│   ")
        for number, other in enumerate(below, 1):
            draw(other, deeper, last=number == len(below), top=False)

    for step in steps:
        if not step["after"]:
            draw(step, "", last=True, top=True)
    return lines
