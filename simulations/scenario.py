"""A scenario as one value: who is there, what they are asked, what goes wrong, what must hold.

In Python or as a TOML file, which says the same::

    name = "flash crowd"
    story = "Given …, when …, then …"
    nodes = 20
    minutes = 5

    [[agents]]
    skill = "upper"
    share = 0.3                     # of the nodes; or count = 6

    [[load]]
    skill = "upper"
    per_minute = 30

    [[faults]]
    at_s = 60
    kind = "crash"
    share = 0.1
    for_s = 30

    [expect]
    completed_min = 0.99

What can be said is what the classes below hold; anything else is refused by name.
"""

import tomllib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from meshnode.errors import ConfigError, InputInvalid
from meshnode.services.crash_points import LABELS, read_crash_point
from simulations.agents import ECHO, JOIN, SUM, UPPER, Skill, Temper
from simulations.complaints import complaints, retold
from simulations.faults import Kind
from simulations.roles import read_part
from simulations.weather import Weather

#: What an agent can be in a scenario; each can be computed again by who checks.
SKILLS: Final[dict[str, Skill]] = {skill.name: skill for skill in (ECHO, UPPER, JOIN, SUM)}

_MINUTES_MAX: Final = 31 * 24 * 60


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Agents of one kind.

    Attributes:
        skill: What they can do; empty for a part that needs no agent, such as a flooder's.
        role: The part that they play, by name (:data:`simulations.roles.ROLES`).
        knobs: How they play it, such as ``{every_s = 30}``.
        share: Of the nodes, how many have one; 0 to 1.
        count: The same as a number, which counts before ``share``.
        temper: How well.
        name: Of each agent, by default the skill's.
    """

    skill: str = ""
    role: str = "honest"
    knobs: dict[str, float | int | str | bool] = msgspec.field(default_factory=dict)
    share: float = 1.0
    count: int = 0
    temper: Temper = msgspec.field(default_factory=Temper)
    name: str = ""


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Jobs that come at random times (a Poisson process).

    Attributes:
        skill: What they need.
        kind: One ``call``; a ``map`` over ``items`` words, one sub-task for each; or a
            ``pipeline``: a map of ``upper``, a map of ``echo`` over that, and a ``join``.
        items: See there.
        per_minute: Jobs a minute, on average, from all brokers together.
        jobs_max: No more than so many; 0 for no end.
        from_s: When it begins, seconds.
        until_s: When it ends, with the scenario at the latest; 0 for its end.
        brokers: How many nodes broker jobs, drawn from those without agents first; 0 for all.
        by: Their names, instead.
        deadline_s: Of each job.
        budget_mc: Of each job.
    """

    skill: str = "upper"
    kind: Literal["call", "map", "pipeline"] = "call"
    items: int = 10
    per_minute: float = 6.0
    jobs_max: int = 0
    from_s: float = 0.0
    until_s: float = 0.0
    brokers: int = 0
    by: tuple[str, ...] = ()
    deadline_s: float = 60.0
    budget_mc: int = 100_000


class Trouble(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that goes wrong at a time.

    Attributes:
        at_s: When, from the start of the load, seconds.
        kind: What (:mod:`simulations.faults`), or ``leave``: it goes in order.
        who: Whom it befalls, by name; empty to draw ``share`` of the nodes.
        share: See ``who``.
        for_s: How long; of no meaning to a broken link or a full disk.
        point: Of ``crash_at``: where they die, counted from ``at_s``, such as
            ``after:award.taken#2``; by default each has one drawn.
    """

    at_s: float
    kind: Kind
    who: tuple[str, ...] = ()
    share: float = 0.0
    for_s: float = 0.0
    point: str = ""


class Churn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes that come and go, at random times over the whole scenario.

    Attributes:
        share: Of the nodes, how many go, once; 0 to 1.
        session_s: Those go again and again instead, whenever they have been up for a time
            drawn exponentially with this mean; 0 for once.
        crash_share: How often they go without a word; 0 to 1.
        back_s: When they come back, from their disk, drawn exponentially with this mean;
            0 for never.
        spared: How many of the first nodes stay.
    """

    share: float = 0.1
    session_s: float = 0.0
    crash_share: float = 0.5
    back_s: float = 120.0
    spared: int = 1


class Mishaps(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults drawn from the seed, as :func:`simulations.faults.draw_schedule` draws them.

    Attributes:
        per_minute: How many begin a minute, on average.
        kinds: Which, equally often; by default all but ``crash_at`` and ``leave``, the
            likelier ones more often.
        skew_s: Clocks are wrong by up to so much, either way, seconds.
    """

    per_minute: float = 2.0
    kinds: tuple[Kind, ...] = ()
    skew_s: float = 0.0


class Expect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold of the jobs, beside what always must.

    Attributes:
        completed_min: Share of the jobs that complete; 0 to 1.
        took_p95_s_max: 95 of 100 jobs take no longer, seconds.
        wrong_max: Share of the completed jobs whose outputs are not the right ones.
        cost_mc_max: What a job costs on average at most, millicredits.
        busiest_max: Share of the running calls at the busiest tenth of the contractors.
        jobs_min: So many must have been asked for: a scenario without load shows nothing.
    """

    completed_min: float = 0.0
    took_p95_s_max: float = float("inf")
    wrong_max: float = 0.0
    cost_mc_max: float = float("inf")
    busiest_max: float = 1.0
    jobs_min: int = 1


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the module.

    Attributes:
        name: In a few words.
        story: Given, when, then.
        nodes: How many there are.
        minutes: How long the load lasts, of virtual time.
        weather: All links.
        directory: ``perfect``, ``lossy`` (misses and stale answers), or ``kademlia``
            (lookups hop by hop over what is left of the routing tables).
        catalogue: Whether neighbours exchange catalogues; without, the DHT alone finds.
        agents: Who can do what.
        load: What is asked.
        faults: What goes wrong, and when.
        churn: Who comes and goes.
        mishaps: What else goes wrong.
        expect: What must hold in the end.
        nat_share: Of the nodes, how many can't be dialled.
    """

    name: str
    story: str
    nodes: int = 20
    minutes: float = 5.0
    weather: Weather = msgspec.field(default_factory=Weather)
    directory: Literal["perfect", "lossy", "kademlia"] = "perfect"
    catalogue: bool = True
    agents: tuple[Group, ...] = (Group(skill="upper", share=0.3),)
    load: tuple[Load, ...] = (Load(),)
    faults: tuple[Trouble, ...] = ()
    churn: Churn | None = None
    mishaps: Mishaps | None = None
    expect: Expect = Expect()
    nat_share: float = 0.0


def parse_scenario(text: str, *, where: str) -> Scenario:
    """Return the scenario that a TOML file holds.

    Args:
        text: What is in it.
        where: What it is called in errors.

    Raises:
        ConfigError: It is no TOML, or says what a scenario can't; names the place.
    """
    hint = "docs/simulation.md lists what a scenario may say"
    try:
        value = tomllib.loads(text)
        for wrong in complaints(value, Scenario):
            raise ConfigError(f"{where}: {wrong}", hint=hint)
        scenario = msgspec.convert(value, Scenario)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where} is not TOML: {exc}", hint=hint) from exc
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{where}: {retold(exc, Scenario)}", hint=hint) from exc
    return checked(scenario, where=where)


def checked(scenario: Scenario, *, where: str) -> Scenario:
    """Return ``scenario`` if it can be played.

    Raises:
        ConfigError: It can't; says why.
    """
    for wrong in _complaints(scenario):
        raise ConfigError(f"{where}: {wrong}", hint="change it there")
    return scenario


def _complaints(scenario: Scenario) -> Iterator[str]:
    if scenario.nodes < 1:
        yield f"nodes is {scenario.nodes}: there must be one"
    if not 0 < scenario.minutes <= _MINUTES_MAX:
        yield f"minutes is {scenario.minutes:g}: say more than 0, and a month at most"
    yield from _unknown_skills(scenario)
    for group in scenario.agents:
        if not 0 <= group.share <= 1:
            yield f"agents: share is {group.share:g}: say 0 to 1"
        if group.count > scenario.nodes:
            yield f"agents: {group.count} have {group.skill}, of {scenario.nodes} nodes"
    if any(load.per_minute <= 0 or load.items < 1 for load in scenario.load):
        yield "load: per_minute and items must be more than 0"
    yield from _wrong_faults(scenario)


def _wrong_faults(scenario: Scenario) -> Iterator[str]:
    nodes = {f"n{i}" for i in range(scenario.nodes)}
    for fault in scenario.faults:
        for name in sorted(set(fault.who) - nodes):
            yield f"faults: there is no node {name!r}: they are n0 to n{scenario.nodes - 1}"
        if not fault.who and not 0 < fault.share <= 1 and fault.kind != "burst":
            yield f"faults: {fault.kind} at {fault.at_s:g} s befalls nobody: say who or share"
        if fault.point and fault.kind != "crash_at":
            yield f"faults: {fault.kind} at {fault.at_s:g} s has no point: say crash_at"
        try:
            read_crash_point(fault.point or f"after:{LABELS[0]}")
        except ConfigError as exc:
            yield f"faults: {exc.line()}"


def _unknown_skills(scenario: Scenario) -> Iterator[str]:
    parts = [("agents", group.skill) for group in scenario.agents]
    for part, skill in (*parts, *(("load", load.skill) for load in scenario.load)):
        if skill not in SKILLS and (skill or part == "load"):
            yield f"{part}: there is no skill {skill!r}; there are {', '.join(SKILLS)}"
    for group in scenario.agents:
        try:
            read_part({"role": group.role, **group.knobs})
        except InputInvalid as exc:
            yield f"agents: {exc}; there are {exc.hint}"
