"""What a scenario measures while it is played: who worked for whom, what ended when.

It is told of events as they happen and keeps counts, not events: an hour of a thousand
nodes has millions of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from meshnode.errors import MeshError
from meshnode.services.events import Happening
from protocol.journal import Event
from simulations.casting import Character
from simulations.mesh import Down
from simulations.outcome import STORIES_MAX, Dot, Line, Story, Window, quantile
from simulations.stage import JobEnd, Stage

#: How many windows the time of a scenario is cut into.
WINDOWS: Final = 60
#: How many are looked at for the busiest: a tenth.
_BUSIEST_SHARE: Final = 0.1
_SAMPLES: Final = 10
_EVENTS_MAX: Final = 200
_TOLD: Final = ("unit", "attempt", "peer", "reason", "code", "verdict", "paid_mc", "text")


class Recorder:
    """See the module.  Make it before the nodes start, and run :meth:`run` with the load."""

    def __init__(self, stage: Stage, *, minutes: float) -> None:
        self._stage = stage
        self._window_s = minutes * 60 / WINDOWS
        self._begun_s = 0.0
        self._lines: Counter[tuple[str, str]] = Counter()
        self._served: Counter[str] = Counter()
        self._ups: list[int] = []
        self._shares: list[float] = []
        stage.mesh.observers.append(self._see)

    def _see(self, name: str, happening: Happening) -> None:
        if happening.name == "award.begun":
            broker = self._stage.mesh.name(str(happening.fields["broker"]))
            self._lines[broker, name] += 1
            self._served[name] += 1

    async def run(self) -> None:
        """Sample who is up and who is busy, until cancelled."""
        self._begun_s = trio.current_time()
        while True:
            shares = []
            for _ in range(_SAMPLES):
                await trio.sleep(self._window_s / _SAMPLES)
                share = self._busiest()
                if share is not None:
                    shares.append(share)
            self._shares.append(sum(shares) / len(shares) if shares else 0.0)
            self._ups.append(len(self._stage.up()))

    def _busiest(self) -> float | None:
        """Return the share of the running calls that the busiest tenth of the agents has."""
        running: Counter[str] = Counter()
        for (node, _), count in self._stage.book.running.items():
            running[node] += count
        if not running:
            return None
        hosts = max(1, round(len(self._served) * _BUSIEST_SHARE))
        return sum(sorted(running.values())[-hosts:]) / sum(running.values())

    # --- afterwards ---

    def windows(self) -> tuple[Window, ...]:
        """Return what happened over time."""
        rows = []
        for i, up in enumerate(self._ups):
            from_s = self._begun_s + i * self._window_s
            ends = [
                end
                for end in self._stage.ends
                if from_s <= end.ended_s < from_s + self._window_s
            ]
            done = [end for end in ends if end.state == "completed"]
            rows.append(
                Window(
                    at_s=round((i + 1) * self._window_s, 3),
                    ended=len(ends),
                    completed=len(done),
                    wrong=sum(end.right is False for end in done),
                    took_s=_mean([end.took_s for end in done]),
                    cost_mc=_mean([end.cost_mc for end in done]),
                    up=up,
                    busiest=round(self._shares[i], 4),
                )
            )
        return tuple(rows)

    def figures(self) -> dict[str, float]:
        """Return what was measured over all."""
        ends = self._stage.ends
        done = [end for end in ends if end.state == "completed"]
        took_s = [end.took_s for end in done]
        jobs = max(1, len(ends))
        return {
            "jobs": len(ends),
            "completed_share": round(len(done) / jobs, 6),
            "wrong_share": round(sum(e.right is False for e in done) / max(1, len(done)), 6),
            "took_p50_s": round(quantile(took_s, 0.5), 4),
            "took_p95_s": round(quantile(took_s, 0.95), 4),
            "took_max_s": round(max(took_s, default=0.0), 4),
            "cost_mean_mc": _mean([end.cost_mc for end in done]),
            "awards": self._served.total(),
            "awards_per_job": round(self._served.total() / jobs, 4),
            "calls": sum(self._stage.book.begun.values()),
            "busiest_share": _mean([share for share in self._shares if share]),
        }

    def dots(self, people: Mapping[str, Character]) -> tuple[Dot, ...]:
        """Return the nodes, and who of ``people`` they are."""
        brokered = Counter(end.by for end in self._stage.ends)
        up = set(self._stage.up())
        dots = []
        for name in self._stage.mesh.members:
            one = people.get(name) or people.get(name.partition(".")[0]) or Character(name)
            dots.append(
                Dot(
                    name=name,
                    skills=tuple(one.skills),
                    role=one.role,
                    up=name in up,
                    brokered=brokered[name],
                    served=self._served[name],
                )
            )
        return tuple(dots)

    def lines(self) -> tuple[Line, ...]:
        """Return who worked for whom, most first."""
        return tuple(
            Line(broker=broker, contractor=contractor, awards=awards)
            for (broker, contractor), awards in self._lines.most_common()
        )

    async def stories(self) -> tuple[Story, ...]:
        """Return the slowest jobs and the first that did not complete, told."""
        ends = self._stage.ends
        failed = [end for end in ends if end.state != "completed" or end.right is False]
        slowest = sorted(ends, key=lambda end: -end.took_s)
        told = failed[:STORIES_MAX]
        told += [end for end in slowest[:STORIES_MAX] if end not in told]
        return tuple([await self._story(end) for end in told])

    async def _story(self, end: JobEnd) -> Story:
        events: tuple[str, ...] = ()
        if end.job and self._stage.mesh.up(end.by):
            try:
                journal = await self._stage.node(end.by).journal(end.job)
                events = self._told(journal.events(0))
            except (MeshError, Down) as exc:
                events = (f"its journal can't be read: {exc}",)
        why = "" if end.state == "completed" else f"{end.code}: {end.text}".strip(": ")
        if end.right is False:
            why = "its outputs are not the right ones"
        return Story(
            job=end.job,
            by=end.by,
            state=end.state,
            why=why,
            begun_s=round(end.begun_s - self._begun_s, 3),
            took_s=round(end.took_s, 3),
            cost_mc=end.cost_mc,
            events=events,
        )

    def _told(self, events: Sequence[Event]) -> tuple[str, ...]:
        """Return what a reader looks for in a journal, with names for peers."""
        begun_ms = events[0].at_ms if events else 0
        names = {member.peer: name for name, member in self._stage.mesh.members.items()}
        lines = []
        for event in events[:_EVENTS_MAX]:
            told = [f"{(event.at_ms - begun_ms) / 1000:9.3f} s {event.kind}"]
            for key in _TOLD:
                value = event.data.get(key, "")
                if key == "peer":
                    value = names.get(value, value)
                if isinstance(value, str | int) and value != "":
                    told.append(f"{key}={value}")
            lines.append(" ".join(told))
        if len(events) > _EVENTS_MAX:
            lines.append(f"… and {len(events) - _EVENTS_MAX} more")
        return tuple(lines)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
