"""What this node has seen of agents, kept: the evidence behind every credibility.

A fact of a job and what it teaches are one commit, so that neither is there without the
other::

    noted = [reputation.note("text.shout@1", f"{peer}/{name}", "agreed", source=award)]
    await store.commit(fact, *(write for one in noted for write in one.writes))
    reputation.learned(*noted)

:meth:`~Reputation.note` gives the evidence its place in the list of that agent, in memory, so
several may be noted for one commit, and several commits be under way.  What was noted counts
from :meth:`~Reputation.learned` on, and is always folded in the order of the list, whichever
commit returns first: a node that starts again stands where it stood, to the bit.  Where the
commit was refused, :meth:`~Reputation.dropped` gives the place up; what its caller forgot, or
was cancelled in, is looked up in the store a little later.

``book(capability)`` is what a broker reckons with: standings, what others say, and how those
begin of whom nothing was seen.  It is always the same object.  ``standing``, ``imported`` and
``credibility`` look into it.  Standings are as of today: idle days have faded them.

Of a node whose key was followed by another (:mod:`meshnode.services.key_fates`) all is kept
under the first of its keys: it stands as it stood, and is banned if any of them is.  What was
seen of a new key before the old one's end was heard of here stays behind.

Who is a *member* of this node's mesh, where only members may call it, begins with 5 units, and
so does this node itself; who invited it, or was invited by its owner, with 8.  That is the
first event of the agent's list, written down with the first thing that is learned of it; until
then it only looks so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from meshnode.config import ANYONE
from meshnode.domain.trust.accounts import Account, account_of
from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import Imported
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.trust.rules import DAY_MS, RULES, Kind, Rules
from meshnode.errors import StoreError
from meshnode.ports import Put
from meshnode.services.context import Context
from meshnode.services.evidence_rows import (
    EVIDENCE,
    LONG_ROWS,
    ROWS_MAX,
    Begun,
    Kept,
    Row,
    cut,
    read_begun,
    read_list,
    read_rows,
)
from meshnode.services.hearsay_rows import HEARD, Heard, heard_write, read_heard
from meshnode.services.invites import OPEN_NAME
from meshnode.services.membership import Members

#: What was noted and neither learned nor dropped is looked up after this, seconds.
_FORGOTTEN_S: Final = 120.0

#: A node of which nothing is known but that it has contradicted itself; never changed.
_BANNED: Final = Standing(equivocated=True)

_STARTS: Final[tuple[Kind, ...]] = ("member", "vouched")


@dataclass(frozen=True, slots=True)
class Noted:
    """Evidence on its way into the store.

    Attributes:
        rows: Of one agent; more than one where its list begins with them.
        writes: What keeps them.
    """

    rows: tuple[Row, ...]

    @property
    def writes(self) -> tuple[Put, ...]:
        """Return what keeps them."""
        return tuple(row.write for row in self.rows)


@dataclass(slots=True)
class _List:
    """The evidence of one agent in one capability.

    Attributes:
        folded: All of it up to the first that is under way.
        number: Of the next.
        after: What follows in it by number: under way (None), or learned.
        begun: How it began is in it, or on its way.
        rows: It has so many in the store, about.
    """

    folded: Standing = field(default_factory=Standing)
    number: int = 0
    after: dict[int, Evidence | None] = field(default_factory=dict)
    begun: bool = False
    rows: int = 0

    def go_on(self, begun: Begun) -> None:
        """Take up the beginning of a list."""
        self.folded = begun.carried.standing.copy()
        self.number = begun.number
        self.begun = not begun.carried.counts.keys().isdisjoint(_STARTS)

    def take(self, row: Row, rules: Rules) -> None:
        """Fold in a row that is in the store, none being under way."""
        self.folded.learn(row.event, rules)
        self.number = row.number + 1
        self.rows += 1
        self.begun = self.begun or row.event.kind in _STARTS

    def place(self, event: Evidence) -> int:
        """Return the number of an event that is under way from now on."""
        number, self.number = self.number, self.number + 1
        self.rows += 1
        self.after[number] = None
        self.begun = self.begun or event.kind in _STARTS
        return number

    def settle(self, row: Row, rules: Rules, *, kept: bool) -> None:
        """Take in what became of an event that was under way."""
        if row.number not in self.after or self.after[row.number] is not None:
            return
        if kept:
            self.after[row.number] = row.event
        else:
            del self.after[row.number]
            self.begun = self.begun and row.event.kind not in _STARTS
        for number, event in list(self.after.items()):
            if event is None:
                break
            self.folded.learn(event, rules)
            del self.after[number]

    def standing(self, rules: Rules) -> Standing:
        """Return how the agent stands by what was learned."""
        ahead = [event for event in self.after.values() if event is not None]
        if not ahead:
            return self.folded
        standing = self.folded.copy()
        for event in ahead:
            standing.learn(event, rules)
        return standing


class Reputation:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(self, context: Context, *, members: Members, rules: Rules = RULES) -> None:
        self.rules = rules
        self._own = context.peer
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._members = members
        self._private = ANYONE not in context.config.access.admitted
        self._newcomers: dict[Kind | None, Standing] = {
            None: Standing(),
            **{kind: fold([Evidence(kind)], rules) for kind in _STARTS},
        }
        self._is_banned: Callable[[str], bool] = lambda _: False
        self._heard: dict[str, Mapping[str, Heard]] = {}
        self._books: dict[str, Book] = {}
        self._days: dict[str, int] = {}  # capability -> day that its book is of
        self._lists: dict[str, dict[str, _List]] = {}
        self._under_way: dict[tuple[str, str, int], tuple[Row, float]] = {}
        self._noted = trio.Event()

    # --- looking ---

    def book(self, capability: str) -> Book:
        """Return what is known of the agents of a capability, as of today."""
        book = self._books.get(capability)
        if book is None:
            book = self._books[capability] = Book(self.rules, partial(self._unseen, capability))
        today = self._clock.now_ms() // DAY_MS
        if self._days.get(capability) != today:
            self._days[capability] = today
            for agent in self._lists.get(capability, ()):
                self._show(capability, agent)
        return book

    def standing(self, capability: str, agent: str) -> Standing:
        """Return how an agent stands by this node's evidence: to look at, not to change."""
        return self.book(capability).standing(agent)

    def imported(self, capability: str, agent: str) -> Imported:
        """Return what others say of an agent."""
        return self.book(capability).imported(agent)

    def credibility(self, capability: str, agent: str) -> float:
        """Return the chance that an agent's next answer is right."""
        return self.book(capability).credibility(agent)

    def is_blocked(self, capability: str, agent: str) -> bool:
        """Tell whether an agent gets no paid work: it did wrong, and isn't believed."""
        agent = self._first(agent)
        if agent not in self._lists.get(capability, ()):
            return False  # who is new has done nothing yet
        return self.book(capability).is_blocked(agent)

    def known(self) -> list[tuple[str, str]]:
        """Return capability and agent of every list of evidence, sorted."""
        return sorted(
            (capability, agent)
            for capability, lists in self._lists.items()
            for agent, known in lists.items()
            if known.standing(self.rules).events
        )

    def capabilities(self) -> list[str]:
        """Return the capabilities that there is evidence in, sorted."""
        return sorted({capability for capability, _ in self.known()})

    def peers(self) -> dict[str, Standing]:
        """Return how nodes stand by the work of all their agents together, as of today.

        Beside those that there is evidence of, who was invited, or invited, is among them.
        """
        sums: dict[str, Standing] = {}
        for capability, agent in self.known():
            one = self.book(capability).standing(agent)
            mine = sums.setdefault(agent.partition("/")[0], Standing())
            mine.good_mu += one.good_mu
            mine.bad_mu += one.bad_mu
            mine.prior_mu = max(mine.prior_mu, one.prior_mu)
            mine.equivocated = mine.equivocated or one.equivocated
        for edge in self._members.edges():
            sums.setdefault(edge.peer, self._newcomer(edge.peer))
        return sums

    @property
    def inviter(self) -> str:
        """Who invited this node, or empty."""
        return self._members.inviter

    def heard_in(self) -> list[str]:
        """Return the capabilities in which others say something that counts, sorted."""
        return sorted(capability for capability, heard in self._heard.items() if heard)

    async def hear(self, capability: str, heard: Mapping[str, Heard]) -> None:
        """Replace what others say of the agents of a capability; durable on return.

        Raises:
            StoreError: It can't be written down; all stays as it was.
        """
        before = self._heard.get(capability, {})
        changed = sorted(
            agent for agent in {*before, *heard} if before.get(agent) != heard.get(agent)
        )
        await self._store.commit(
            *(heard_write(capability, agent, heard.get(agent)) for agent in changed)
        )
        self._take_heard(capability, heard)

    def _take_heard(self, capability: str, heard: Mapping[str, Heard]) -> None:
        self._heard[capability] = heard
        said = {agent: one.imported for agent, one in heard.items()}
        self.book(capability).take(said)

    def judge_by(self, is_banned: Callable[[str], bool]) -> None:
        """Believe nothing of nodes that ``is_banned`` names: call :meth:`banned` with each."""
        self._is_banned = is_banned

    def banned(self, peer: str) -> None:
        """Have all books know that a node is banned."""
        peer = self._members.fates.first(peer)
        for capability, lists in self._lists.items():
            for agent in lists:
                if agent.partition("/")[0] == peer:
                    self._show(capability, agent)

    async def kept(self, capability: str, agent: str) -> Kept:
        """Return an agent's evidence, as the store has it.

        Raises:
            StoreError: It can't be read.
        """
        return await read_list(self._store, capability, agent)

    def seen(self, capability: str, agent: str) -> Standing:
        """Return what was learned of an agent as it is in the store: as of the last of it."""
        known = self._lists.get(capability, {}).get(agent)
        return Standing() if known is None else known.standing(self.rules)

    def is_learning(self, capability: str, agent: str) -> bool:
        """Tell whether something of an agent is under way into the store."""
        known = self._lists.get(capability, {}).get(agent)
        return known is not None and bool(known.after)

    async def account(self, capability: str, agent: str) -> tuple[Account, list[Evidence]]:
        """Return what an agent's credibility is made of, by the store, and what is kept of it.

        The number is the book's to the bit, unless something is being learned just now.

        Raises:
            StoreError: It can't be read.
        """
        agent = self._first(agent)
        kept, now_ms = await self.kept(capability, agent), self._clock.now_ms()
        events = [row.event for row in kept.rows]
        known = self._lists.get(capability, {}).get(agent)
        begins: list[Evidence] = []
        if (known is None or not known.begun) and (start := self._start(agent)) is not None:
            begins.append(Evidence(start, now_ms))
        if self._is_out(agent):
            begins.append(Evidence("equivocated", now_ms))
        heard = self._heard.get(capability, {}).get(agent, Heard())
        account = account_of(
            [*events, *begins],
            heard.shares,
            heard.imported,
            now_ms=now_ms,
            carried=kept.carried,
            rules=self.rules,
        )
        return account, events

    # --- learning ---

    def note(
        self,
        capability: str,
        agent: str,
        kind: Kind,
        *,
        source: bytes = b"",
        at_ms: int | None = None,
    ) -> Noted:
        """Return evidence with its place in an agent's list, to be committed.

        Args:
            capability: Full name.
            agent: ``peer/name``.
            kind: What was learned.
            source: Hash of what is behind it, such as the award; empty for nothing.
            at_ms: When, Unix time; now if it isn't said.
        """
        now_ms = self._clock.now_ms() if at_ms is None else at_ms
        agent = self._first(agent)
        known = self._list(capability, agent)
        events = [Evidence(kind, now_ms, source)]
        if not known.begun and (start := self._start(agent)) is not None:
            events.insert(0, Evidence(start, now_ms))
        rows = tuple(Row(capability, agent, known.place(event), event) for event in events)
        for row in rows:
            self._under_way[row[:3]] = row, trio.current_time()
        self._noted.set()
        return Noted(rows)

    def learned(self, *noted: Noted) -> None:
        """Take in what was noted, once its writes are committed."""
        self._settle(noted, kept=True)

    def dropped(self, *noted: Noted) -> None:
        """Give up what was noted, once it is certain that its writes were not committed."""
        self._settle(noted, kept=False)

    def _settle(self, noted: tuple[Noted, ...], *, kept: bool) -> None:
        for row in (row for one in noted for row in one.rows):
            if self._under_way.pop(row[:3], None) is not None:
                known = self._lists[row.capability][row.agent]
                known.settle(row, self.rules, kept=kept)
        for capability, agent in dict.fromkeys(row[:2] for one in noted for row in one.rows):
            self._show(capability, agent)

    # --- living ---

    async def load(self) -> None:
        """Take up what the rows say.

        Raises:
            StoreError: They can't be read.
        """
        for (capability, agent), begun in (await read_begun(self._store)).items():
            self._list(capability, agent).go_on(begun)
        for row in read_rows(await self._store.scan(EVIDENCE, count_max=ROWS_MAX)):
            self._list(row.capability, row.agent).take(row, self.rules)
        heard: dict[str, dict[str, Heard]] = {}
        for key, raw in await self._store.scan(HEARD, count_max=ROWS_MAX):
            capability, agent, one = read_heard(key, raw)
            heard.setdefault(capability, {})[agent] = one
        for capability, said in heard.items():
            self._take_heard(capability, said)
        self._noted.set()  # a list may be long

    async def run(self) -> None:
        """Look up what nobody said the fate of, and cut long lists, until cancelled."""
        while True:
            await self._noted.wait()
            self._noted = trio.Event()
            await trio.sleep(_FORGOTTEN_S)
            try:
                await self._look_up()
                await self._cut()
            except StoreError as exc:
                self._emit("evidence.unread", why=str(exc))
                self._noted.set()
            if self._under_way:  # too young to be asked after
                self._noted.set()

    async def _look_up(self) -> None:
        """Learn or drop what was noted long ago: its commit has ended by now."""
        since_s = trio.current_time() - _FORGOTTEN_S
        for row, noted_s in list(self._under_way.values()):
            if noted_s <= since_s:
                there = await self._store.read(EVIDENCE, row.write.key)
                self._settle((Noted((row,)),), kept=there is not None)

    async def _cut(self) -> None:
        """Keep the beginnings of long lists as what they came to."""
        for capability, lists in list(self._lists.items()):
            for agent, known in list(lists.items()):
                if known.rows > LONG_ROWS:
                    kept = await self.kept(capability, agent)
                    writes = cut(kept, before=next(iter(known.after), None), rules=self.rules)
                    await self._store.commit(*writes)
                    known.rows -= max(0, len(writes) - 1)

    # --- pieces ---

    def _list(self, capability: str, agent: str) -> _List:
        return self._lists.setdefault(capability, {}).setdefault(agent, _List())

    def _show(self, capability: str, agent: str) -> None:
        """Have the book say how an agent stands today."""
        known = self._lists[capability][agent]
        standing, now_ms = known.standing(self.rules), self._clock.now_ms()
        if not known.begun and (start := self._start(agent)) is not None:
            standing = standing.copy()
            standing.learn(Evidence(start, now_ms), self.rules)
        if self._is_out(agent):
            standing = replace(standing, equivocated=True)
        self.book(capability).put(agent, standing.at(now_ms, self.rules))

    def _unseen(self, capability: str, agent: str) -> Standing:
        """Return how an agent stands that a book has nothing of under this key."""
        first = self._first(agent)
        if first != agent and first in self._lists.get(capability, ()):
            return self.book(capability).standing(first)
        return self._newcomer(agent)

    def _newcomer(self, agent: str) -> Standing:
        """Return how an agent stands of whom nothing was seen, under this key."""
        if self._is_out(agent):
            return _BANNED
        return self._newcomers[self._start(agent)]

    def _first(self, agent: str) -> str:
        """Return an agent's id by the first key of its node."""
        peer, slash, name = agent.partition("/")
        return self._members.fates.first(peer) + slash + name

    def _is_out(self, agent: str) -> bool:
        """Tell whether an agent's node is banned, by any of its keys."""
        peer = agent.partition("/")[0]
        heir = self._members.fates.heir(peer)
        return any(map(self._is_banned, (peer, heir, *self._members.fates.followed(heir))))

    def _start(self, agent: str) -> Kind | None:
        """Return how an agent begins, by what its node is to this one."""
        peer = agent.partition("/")[0]
        match self._members.standing(peer):
            case "inviter":
                return "vouched"
            case "invited" if self._members.name_of(peer) != OPEN_NAME:
                return "vouched"
            case "self":
                return "member"
            case "member" | "invited" if self._private:
                return "member"
        return None
