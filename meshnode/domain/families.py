"""Of which model family agents are, told from their answers and not from their records.

A record's ``model_family`` costs nothing, and two models of one family make the same mistakes:
whoever runs one model under many names would have its agreement with itself counted as that of
several.  So the same questions are put to many agents, and agents whose answers begin alike
are one *cluster*: one model, as far as anybody can see, whatever they declare.

A cluster has a name if it is the *home* of a family: the home of F is where this node's own
agent that declares F is, or else where agents of two or more peers declare F and more than
anywhere else.  All of a cluster get its name.  Who declares F and answers unlike F's home is
not F; in a cluster without a name it is nothing that is known, and earns no bonus for being
different.  So by any number of agents that answer alike nobody is ever more than one family.

Pure: answers in, names out.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from meshnode.domain.likeness import normalised

#: The family of all models that aren't recognised.
UNKNOWN: Final = "?"
#: Questions that two must both have answered, and how large a part of them alike.
ANSWERS_MIN: Final = 8
ALIKE: Final = 0.6
#: So many words at the beginning of an answer are compared: further on, the same model on
#: other hardware goes another way.
_WORDS: Final = 4
#: Peers that must declare a family where this node has no agent of it.
_PEERS_MIN: Final = 2


class Look(msgspec.Struct, frozen=True):
    """How an agent answered.

    Attributes:
        agent: Its id, ``peer/name``.
        declared: Its model family by its record; empty for none.
        answers: Question -> answer; what it didn't answer is left out.
    """

    agent: str
    declared: str
    answers: Mapping[str, str]


def likeness(one: Look, other: Look) -> float:
    """Return which part of the questions two answered alike; 0 if too few were answered."""
    both = [question for question in one.answers if question in other.answers]
    if len(both) < ANSWERS_MIN:
        return 0.0
    same = sum(_opening(one.answers[q]) == _opening(other.answers[q]) for q in both)
    return same / len(both)


def clusters(looks: Sequence[Look]) -> list[list[Look]]:
    """Return the looks, those together that are alike, or alike with others between them.

    Whatever order the looks come in, the clusters are the same.
    """
    waiting = sorted(looks, key=lambda look: look.agent)
    found: list[list[Look]] = []
    while waiting:
        cluster = [waiting.pop(0)]
        for look in cluster:  # it grows meanwhile
            near = [other for other in waiting if likeness(look, other) >= ALIKE]
            waiting = [other for other in waiting if other not in near]
            cluster += near
        found.append(sorted(cluster, key=lambda look: look.agent))
    return found


def recognised(looks: Sequence[Look], *, own: Collection[str] = ()) -> dict[str, str]:
    """Return the family of each agent that answered enough; empty for one not recognised.

    Args:
        looks: At answers to the same questions.
        own: Agents of this node: what they declare is true.
    """
    found = [c for c in clusters(looks) if len(c[0].answers) >= ANSWERS_MIN]
    names: dict[int, list[tuple[bool, int, str]]] = {}
    declared = {look.declared for look in looks if look.declared}
    for family in sorted(declared):
        home = _home(family, found, own)
        if home is not None:
            place, anchored, peers = home
            names.setdefault(place, []).append((not anchored, -peers, family))
    return {
        look.agent: min(names[place])[2] if place in names else ""
        for place, cluster in enumerate(found)
        for look in cluster
    }


def _home(
    family: str, found: Sequence[Sequence[Look]], own: Collection[str]
) -> tuple[int, bool, int] | None:
    """Return the place of a family's cluster, whether this node vouches, by how many peers."""
    peers: Counter[int] = Counter()
    anchors: Counter[int] = Counter()
    for place, cluster in enumerate(found):
        of_it = [look.agent for look in cluster if look.declared == family]
        peers[place] = len({agent.partition("/")[0] for agent in of_it})
        anchors[place] = sum(agent in own for agent in of_it)
    if anchors.total():
        place, _ = anchors.most_common(1)[0]
        return place, True, peers[place]
    ranked = peers.most_common(2)
    if not ranked or ranked[0][1] < _PEERS_MIN:
        return None
    if len(ranked) > 1 and ranked[1][1] == ranked[0][1]:
        return None  # who of two halves is F nobody can tell
    return ranked[0][0], False, ranked[0][1]


def _opening(answer: str) -> str:
    return " ".join(normalised(answer).split()[:_WORDS])
