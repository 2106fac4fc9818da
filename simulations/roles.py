"""Who plays what: every adversary by a name, with its knobs, as a scenario's file says it.

::

    part = read_part({"role": "exit_scam", "share": 0.2, "after_calls": 20})
    enter(stage, [UPPER, ECHO], part.role, n=4, name="mallory")

Most adversaries are ruses (of an agent) or conducts (of a node); a few are plots, which
need to add and remove nodes.  They can be put together: any number of ruses, the outermost
first, with one conduct and one plot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
import trio

from meshnode.errors import InputInvalid
from simulations import adversaries, nuisances, rogues
from simulations.agents import Act, Skill
from simulations.rogues import Conduct
from simulations.ruses import Disguise, Ruse
from simulations.stage import Offer, Place, Stage


class Whitewasher(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Leaves, and comes back under a new name, with its old one's record left behind.

    It gains a newcomer's standing again and again (Friedman and Resnick, "The social cost of
    cheap pseudonyms", 2001; Feldman et al. 2004).  A newcomer should get no more than it
    costs to become one: little work at first, checked; and a price on names.

    Attributes:
        every_s: How long it keeps a name.
    """

    every_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0

    async def play(
        self, stage: Stage, offers: Sequence[Offer], name: str, place: Place
    ) -> None:
        """Come and go for ever."""
        while True:
            (one,) = stage.add(offers, name=name, **place)
            await stage.ready()
            await trio.sleep(self.every_s)
            if stage.mesh.up(one):
                await stage.mesh.retire(one)


class Eclipser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answers lookups of the DHT with accomplices only, and keeps nothing of what it takes.

    See :class:`simulations.answering.Eclipsing`.  It gains whoever finds others by the DHT
    alone; catalogues between neighbours, and lookups on several ways, make it useless.
    """


class StaleReplayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Serves the first record of each peer that it ever had, whatever came after.

    See :class:`simulations.answering.Replaying`.  It gains that others go
    where somebody was.  Records carry a sequence and lapse, so time undoes it.
    """


#: What is played at the DHT, by a node that is honest otherwise.
Poisoner = Eclipser | StaleReplayer
Role = Ruse | Conduct | Whitewasher | Poisoner

#: Name in a file -> what is made with its knobs.
ROLES: Final[Mapping[str, type[Role]]] = MappingProxyType(
    {
        "honest": Ruse,
        "erring": adversaries.Erring,
        "slow": adversaries.Slow,
        "flaky": adversaries.Flaky,
        "silent": adversaries.Silent,
        "babbler": adversaries.Babbler,
        "liar": adversaries.Liar,
        "injecting": adversaries.Injecting,
        "camouflaged": adversaries.Camouflaged,
        "on_off": adversaries.OnOff,
        "exit_scam": adversaries.ExitScam,
        "colluder": adversaries.Colluder,
        "scribe": adversaries.Scribe,
        "freerider": adversaries.Freerider,
        "sybil": adversaries.Sybil,
        "overclaimer": adversaries.Overclaimer,
        "welsher": rogues.Welsher,
        "repudiator": rogues.Repudiator,
        "dropper": rogues.Dropper,
        "baiter": rogues.Baiter,
        "boaster": rogues.Boaster,
        "forger": rogues.Forger,
        "price_fixer": rogues.PriceFixer,
        "flooder": nuisances.Flooder,
        "replayer": nuisances.Replayer,
        "whitewasher": Whitewasher,
        "eclipser": Eclipser,
        "stale_replayer": StaleReplayer,
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """A role, and which share of a mesh's nodes plays it.

    Attributes:
        name: Of the role, in :data:`ROLES`.
        role: With its knobs.
        share: From 0 to 1.
    """

    name: str
    role: Role
    share: float


def read_part(table: Mapping[str, object]) -> Part:
    """Return what a table of a scenario's file says: ``role``, ``share`` and the knobs.

    Raises:
        InputInvalid: There is no such role or knob, or a value is out of range.
    """
    knobs = dict(table)
    name, share = knobs.pop("role", ""), knobs.pop("share", 1.0)
    if not isinstance(name, str) or name not in ROLES:
        raise InputInvalid(f"there is no role {name!r:.60}", hint=", ".join(sorted(ROLES)))
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InputInvalid(f"role {name}: a share of {share!r:.60}", hint="from 0 to 1")
    try:
        role = msgspec.convert(knobs, ROLES[name])
    except msgspec.ValidationError as exc:
        known = ", ".join(ROLES[name].__struct_fields__) or "it has none"
        raise InputInvalid(f"role {name}: {exc}", hint=f"its knobs: {known}") from exc
    return Part(name, role, float(share))


def deal(parts: Sequence[Part], n: int, rng: Random) -> list[Part]:
    """Return who of ``n`` plays what, in an order that is drawn.

    Each part goes to its share, rounded, while there is somebody left; who has none is
    honest.
    """
    dealt = [part for part in parts for _ in range(round(part.share * n))][:n]
    dealt += [Part("honest", Ruse(), 0.0)] * (n - len(dealt))
    rng.shuffle(dealt)
    return dealt


def enter(
    stage: Stage,
    acts: Iterable[Skill | Act],
    *roles: Role,
    n: int = 1,
    name: str = "n",
) -> list[str]:
    """Add ``n`` nodes that offer ``acts`` and play ``roles``; return their names.

    Names of those that change them are not known, and not returned.

    Args:
        stage: Where.
        acts: What they could do honestly.
        *roles: Ruses, the outermost first; a conduct; a plot.  What is played at the DHT
            is a scenario's (:mod:`simulations.casting`).
        n: How many.
        name: Their names begin so.

    Raises:
        InputInvalid: Two conducts or two plots: a node has one of each.
    """
    ruses = tuple(role for role in roles if isinstance(role, Ruse))
    conducts = [role for role in roles if isinstance(role, Conduct)]
    plots = [role for role in roles if isinstance(role, Whitewasher)]
    if max(len(conducts), len(plots)) > 1:
        raise InputInvalid("a node has one conduct, and is in one plot")
    offers = [Disguise(Act(a) if isinstance(a, Skill) else a, ruses or (Ruse(),)) for a in acts]
    place: Place = {"conduct": conducts[0]} if conducts else {}
    if not plots:
        return stage.add(offers, n=n, name=name, **place)
    for i in range(n):
        stage.world.nursery.start_soon(plots[0].play, stage, offers, f"{name}{i}.", place)
    return []
