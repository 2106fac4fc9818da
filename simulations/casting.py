"""Who is there in a scenario, what they offer, and who of them plays a part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from meshnode.errors import InputInvalid
from simulations.agents import Act
from simulations.answering import Eclipsing, Replaying
from simulations.dht import KademliaDht
from simulations.rogues import Conduct
from simulations.roles import Eclipser, Part, Poisoner, Whitewasher, read_part
from simulations.ruses import Disguise, Ruse
from simulations.scenario import SKILLS, Group, Scenario
from simulations.stage import Offer, Place, Stage


@dataclass(slots=True)
class Character:
    """A node before it starts.

    Attributes:
        name: Its name.
        skills: What it offers.
        offers: The same as agents are made of.
        role: The part that it plays, by name.
        place: What :meth:`Stage.add` is told of it.
        plot: Who adds it instead, if its part needs that.
        poison: What it does to the DHT.
    """

    name: str
    skills: list[str] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    role: str = "honest"
    place: Place = field(default_factory=Place)
    plot: Whitewasher | None = None
    poison: Poisoner | None = None


def cast(scenario: Scenario, rng: Random) -> Mapping[str, Character]:
    """Return who is there, by name, in the order in which they start.

    Raises:
        InputInvalid: There is no such role, or it has no such knob.
    """
    names = [f"n{i}" for i in range(scenario.nodes)]
    people = {name: Character(name) for name in names}
    taken: dict[str, list[str]] = {name: [] for name in names}  # names of its agents
    for group in scenario.agents:
        part = read_part({"role": group.role, **group.knobs})
        agent = group.name or group.skill
        # Who has an agent of the name can't have another; who plays a part plays no second.
        free = [
            name
            for name in names
            if (not agent or agent not in taken[name])
            and (group.role == "honest" or people[name].role == "honest")
        ]
        for name in rng.sample(free, min(len(free), _members(group, scenario.nodes))):
            _join(people[name], group, part)
            taken[name].append(agent)
    hidden = rng.sample(names[1:], round(scenario.nat_share * (len(names) - 1)))
    skew_s = scenario.mishaps.skew_s if scenario.mishaps else 0.0
    for character in people.values():
        character.place["skew_ms"] = round(rng.uniform(-skew_s, skew_s) * 1000)
        character.place["listens"] = character.name not in hidden
        character.place["joins"] = scenario.catalogue
    return people


def _members(group: Group, nodes: int) -> int:
    return group.count or max(1, round(group.share * nodes))


def _join(character: Character, group: Group, part: Part) -> None:
    if group.role != "honest":
        character.role = group.role
    if isinstance(part.role, Conduct):
        character.place["conduct"] = part.role
    if isinstance(part.role, Whitewasher):
        character.plot = part.role
    if isinstance(part.role, Poisoner):
        character.poison = part.role
    if not group.skill:
        return
    act = Act(SKILLS[group.skill], group.temper, name=group.name or group.skill)
    ruse = part.role if isinstance(part.role, Ruse) and group.role != "honest" else None
    character.offers.append(Disguise(act, (ruse,)) if ruse is not None else act)
    character.skills.append(group.skill)


def enter(stage: Stage, people: Sequence[Character]) -> None:
    """Start everybody; :meth:`Stage.ready` waits until they are up.

    Raises:
        InputInvalid: Somebody is to poison a DHT that there is not.
    """
    _poison(stage, [one for one in people if one.poison is not None])
    for one in people:
        if one.plot is not None:
            stage.world.nursery.start_soon(
                one.plot.play, stage, one.offers, f"{one.name}.", one.place
            )
        else:
            (name,) = stage.add(one.offers, name="n", **one.place)
            assert name == one.name, f"{one.name} was to start as that, not as {name}"


def _poison(stage: Stage, poisoners: Sequence[Character]) -> None:
    if not poisoners:
        return
    dht = stage.mesh.directory
    if not isinstance(dht, KademliaDht):
        raise InputInvalid(
            f"role {poisoners[0].role} needs a DHT", hint='say directory = "kademlia"'
        )
    peers = {one.name: stage.mesh.identity(one.name).peer for one in poisoners}
    eclipsers = [peers[one.name] for one in poisoners if isinstance(one.poison, Eclipser)]
    for one in poisoners:
        eclipses = isinstance(one.poison, Eclipser)
        dht.corrupt(peers[one.name], Eclipsing(eclipsers) if eclipses else Replaying())
