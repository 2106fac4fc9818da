"""Who is there and what they can do: the node's view of the mesh.

Two ways, one record (DESIGN): the catalogue, exchanged with neighbours, answers at
once and from here; the DHT finds strangers and what a catalogue doesn't hold.  Both
carry the same signed record, and whatever either brings goes through one intake.

What is returned is a hint.  Being there is shown by a session: a failed dial puts a
peer last, an open session or a higher sequence clears it.  This node's own record is
among what is returned.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import trio

from meshnode.config import DirectoryConfig
from meshnode.domain.catalogue import Catalogue, Outcome
from meshnode.domain.claims import says_news
from meshnode.errors import ConfigError, StoreError, Unreachable
from meshnode.ports import Directory, Emit, Started, Store, WallClock
from meshnode.services.context import Context
from meshnode.services.exchange import Exchange
from meshnode.services.features import features_of
from meshnode.services.key_fates import KeyFates
from meshnode.services.records import Intake, OwnRecord, names_of, validate_record
from meshnode.services.rendezvous import EVERYBODY, Rendezvous
from meshnode.services.sessions import Sessions
from protocol.errors import LocalProtocolError
from protocol.keys import Identity
from protocol.records import Capability, CapabilityName, NodeRecord

__all__ = ["DirectoryService", "validate_record"]

Provider = tuple[NodeRecord, Capability]

#: Own records are this far apart at least, seconds: many changes make one record.
_RENEW_GAP_S: Final = 0.2
#: Two nodes with one key would outbid each other for ever: this far apart, seconds.
_OUTRUN_GAP_S: Final = 5.0
#: Part of its lifetime after which a record is signed anew.
_RENEW_AT: Final = (0.4, 0.5)
_LEAVE_S: Final = 2.0
#: Where no neighbour waits for news, it is looked for no more often than this, seconds.
_LOOK_S: Final = 300.0
#: First wait of a node without neighbours before it asks the DHT again, seconds.
_COMPANY_S: Final = 1.0
_JITTER: Final = (0.75, 1.25)
#: Rounds without news after which a search in the DHT ends, if nothing or something
#: was known before.
_PATIENCE: Final = 3
_PATIENCE_KNOWN: Final = 1


class DirectoryService:
    """See the module.  Run :meth:`run` once its :class:`Sessions` run."""

    def __init__(  # noqa: PLR0913 - its ports, and what the node tells of itself
        self,
        *,
        identity: Identity,
        network: str,
        config: DirectoryConfig,
        clock: WallClock,
        sessions: Sessions,
        directory: Directory | None,
        rng: Random,
        emit: Emit,
        addresses: Callable[[], Sequence[str]],
        capabilities: Callable[[], Sequence[Capability]],
        store: Store,
        seeds: Sequence[str] = (),
        features: Sequence[str] = (),
    ) -> None:
        """Wire it up.

        ``seeds`` are PeerIds of nodes that are always worth asking, ``features`` what this
        node is for others beside its agents.
        """
        self._features = tuple(features)
        self._peer = identity.peer
        self._config = config
        self._rng = rng
        self._emit = emit
        self._addresses = addresses
        self._capabilities = capabilities
        self._own = OwnRecord(
            identity,
            network=network,
            clock=clock,
            store=store,
            lifetime_ms=round(config.record_lifetime_s * 1000),
            features=features,
        )
        self._catalogue = Catalogue(identity.peer, network)
        self._intake = Intake(self._catalogue, clock=clock, emit=emit)
        self._intake.on_news(self._heard_of_self)
        self._exchange = (
            Exchange(self._intake, sessions, config, rng=rng, emit=emit, seeds=seeds)
            if config.catalogue
            else None
        )
        self._rendezvous = (
            Rendezvous(
                directory,
                self._intake,
                own=identity.peer,
                rng=rng,
                emit=emit,
                interval_s=config.provide_interval_s,
            )
            if config.dht and directory is not None
            else None
        )
        self._changed = trio.Event()
        self._renew_at_ms = 0
        #: What a record was last signed with, or could not be.
        self._tried: tuple[list[str], list[Capability]] = ([], [])
        self._outrun_s = -_OUTRUN_GAP_S
        self._left = False
        self._lost = trio.Event()
        sessions.on_change(self._session_changed)

    # --- asking ---

    def addresses_of(self, peer: str) -> Sequence[str]:
        """Return where ``peer`` says that it can be dialled."""
        record = self._catalogue.record(peer, now_ms=self._intake.now_ms())
        return tuple(record.addresses) if record is not None else ()

    def known(self) -> Sequence[NodeRecord]:
        """Return the record of every peer known, this node's too, in order of PeerId."""
        return self._catalogue.records(now_ms=self._intake.now_ms())

    def providers(self, capability: str) -> Sequence[Provider]:
        """Return who is known here to offer ``capability`` or what it covers.

        Raises:
            Malformed: Not a capability name.
        """
        query = CapabilityName.parse(capability)
        return self._catalogue.providers(query, now_ms=self._intake.now_ms())

    async def search(
        self, capability: str, *, timeout_s: float, records_max: int | None = None
    ) -> Sequence[Provider]:
        """Return who offers ``capability``, known here or found in the DHT.

        Where nobody was known before, the DHT is asked until several rounds find nobody
        new, or ``records_max`` were found: it is lossy.

        Raises:
            Malformed: Not a capability name.
        """
        query = CapabilityName.parse(capability)
        if self._rendezvous is not None:
            others = any(record.peer != self._peer for record, _ in self.providers(capability))
            patience = _PATIENCE_KNOWN if others and self._config.catalogue else _PATIENCE
            await self._rendezvous.find(
                query, timeout_s=timeout_s, patience=patience, records_max=records_max
            )
        else:
            await trio.lowlevel.checkpoint()
        return self.providers(capability)

    async def lookup(self, peer: str) -> NodeRecord | None:
        """Return the record of ``peer``, from the DHT if it isn't known here."""
        known = self._catalogue.record(peer, now_ms=self._intake.now_ms())
        if self._rendezvous is not None and (known is None or self._catalogue.is_demoted(peer)):
            await self._rendezvous.record(peer)
            return self._catalogue.record(peer, now_ms=self._intake.now_ms())
        await trio.lowlevel.checkpoint()
        return known

    @property
    def own(self) -> bytes:
        """This node's record, as it was signed last."""
        return self._own.envelope

    def on_news(self, listener: Callable[[NodeRecord], None]) -> None:
        """Call ``listener`` with every record that is news, this node's own included."""

        def heard(outcome: Outcome, _: str) -> None:
            if outcome.record is not None:
                listener(outcome.record)

        self._intake.on_news(heard)

    def featuring(self, feature: str) -> Sequence[str]:
        """Return the peers known here whose record has ``feature``, in order of PeerId."""
        return [record.peer for record in self.known() if feature in record.features]

    async def search_featuring(self, feature: str, *, timeout_s: float) -> Sequence[str]:
        """Return the same, after a look into the DHT."""
        if self._rendezvous is not None:
            query = CapabilityName.parse(_listed(feature))
            await self._rendezvous.find(query, timeout_s=timeout_s, patience=_PATIENCE_KNOWN)
        else:
            await trio.lowlevel.checkpoint()
        return self.featuring(feature)

    def neighbours(self) -> Sequence[str]:
        """Return with whom catalogues are exchanged, sorted."""
        return self._exchange.neighbours() if self._exchange is not None else ()

    def refused(self) -> dict[str, int]:
        """Return how many records were refused, by code."""
        return dict(self._intake.refused)

    # --- telling ---

    def changed(self) -> None:
        """Say that capabilities or addresses changed: others are told at once."""
        self._changed.set()

    def failed(self, peer: str) -> None:
        """Say that a dial of ``peer`` failed."""
        self._catalogue.demote(peer)

    def prove(self, nonce: bytes) -> None:
        """Show a proof of work for this node's name, from now on."""
        self._own.work = nonce
        self.changed()

    def work_of(self, peer: str) -> bytes | None:
        """Return the nonce in the record of ``peer``, empty if none; None without a record."""
        record = self._catalogue.record(peer, now_ms=self._intake.now_ms())
        return record.work if record is not None else None

    def forget_ended(self, fates: KeyFates) -> None:
        """Hold no record by a key that has ended, from now on."""
        self._intake.ended = fates.ended
        fates.on_change(lambda peer: self._catalogue.drop(peer, now_ms=self._intake.now_ms()))

    async def leave(self) -> None:
        """Tell others that this node goes; best effort, within seconds."""
        self._left = True
        envelope = await self._own.sign_leave()
        self._intake.offer(envelope, source=self._peer)
        with trio.move_on_after(_LEAVE_S):
            async with trio.open_nursery() as nursery:
                if self._exchange is not None:
                    nursery.start_soon(self._push_leave, self._exchange, envelope)
                if self._rendezvous is not None:
                    self._rendezvous.tell(envelope, ())
                    nursery.start_soon(self._publish_leave, self._rendezvous, envelope)
        self._emit("directory.left")

    async def _push_leave(self, exchange: Exchange, envelope: bytes) -> None:
        await exchange.push_own(envelope, timeout_s=_LEAVE_S)

    async def _publish_leave(self, rendezvous: Rendezvous, envelope: bytes) -> None:
        try:
            await rendezvous.publish(envelope, ())
        except Unreachable as exc:
            self._emit("directory.provide_failed", why=str(exc))

    # --- running ---

    async def run(self, *, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        """Keep this node's record known and the catalogue fresh, until cancelled.

        Raises:
            ConfigError: What the node tells of itself is no valid record.
            StoreError: The sequence can't be written down.
        """
        await self._own.load()
        try:
            await self._renew(*self._told_now())
        except LocalProtocolError as exc:
            raise ConfigError(
                f"this node's record: {exc}", hint="shorten or mend what its agents declare"
            ) from exc
        async with trio.open_nursery() as nursery:
            if self._rendezvous is not None:
                nursery.start_soon(self._rendezvous.run)
            if self._exchange is not None:
                self._exchange.start(nursery)
                if self._rendezvous is not None:
                    nursery.start_soon(self._find_company, self._exchange, self._rendezvous)
            nursery.start_soon(self._keep_fresh)
            task_status.started()

    async def _keep_fresh(self) -> None:
        """Renew the own record when it is time or something changed; drop expired ones."""
        while True:
            now_ms = self._intake.now_ms()
            wait_s = min(self._look_s, (self._renew_at_ms - now_ms) / 1000)
            with trio.move_on_after(max(wait_s, _RENEW_GAP_S)):
                await self._changed.wait()
            for peer in self._catalogue.sweep(now_ms=self._intake.now_ms()):
                self._emit("directory.expired", peer=peer)
            if self._is_due():
                try:
                    await self._renew_somehow()
                except StoreError as exc:
                    # The record that is out still holds; a new one is signed when it can be.
                    self._emit("directory.record_unsaved", why=str(exc))
                    self._changed.set()
                await trio.sleep(_RENEW_GAP_S)

    @property
    def _look_s(self) -> float:
        """How often to look for what lapsed, and for what is to be told anew."""
        interval_s = self._config.digest_interval_s
        return interval_s if self._exchange is not None else max(interval_s, _LOOK_S)

    def _is_due(self) -> bool:
        return not self._left and (
            self._changed.is_set()
            or self._intake.now_ms() >= self._renew_at_ms
            or self._has_news()
        )

    def _has_news(self) -> bool:
        addresses, capabilities = self._told_now()
        return addresses != self._tried[0] or says_news(self._tried[1], capabilities)

    def _told_now(self) -> tuple[list[str], list[Capability]]:
        return list(self._addresses()), list(self._capabilities())

    async def _renew_somehow(self) -> None:
        """Renew; with what was told before if what is to be told now is no valid record."""
        try:
            await self._renew(*self._told_now())
        except LocalProtocolError as exc:
            self._emit("directory.record_invalid", why=str(exc))
            if (record := self._own.record) is not None:
                tried = self._tried
                await self._renew(record.addresses, record.capabilities)
                self._tried = tried

    async def _renew(
        self, addresses: Sequence[str], capabilities: Sequence[Capability]
    ) -> None:
        self._changed = trio.Event()
        self._tried = (list(addresses), list(capabilities))
        envelope = await self._own.sign(addresses, capabilities)
        lifetime_ms = self._config.record_lifetime_s * 1000
        self._renew_at_ms = self._intake.now_ms() + round(
            lifetime_ms * self._rng.uniform(*_RENEW_AT)
        )
        if self._left:
            return
        self._intake.offer(envelope, source=self._peer)
        if self._rendezvous is not None:
            everybody = (EVERYBODY,) if self._config.catalogue else ()
            named = [_listed(feature) for feature in self._features]
            self._rendezvous.tell(envelope, (*everybody, *names_of(capabilities), *named))

    async def _find_company(self, exchange: Exchange, rendezvous: Rendezvous) -> None:
        """Ask the DHT for others while there is no neighbour, ever more rarely."""
        wait_s = _COMPANY_S
        while True:
            self._lost = trio.Event()
            if exchange.neighbours():
                wait_s = _COMPANY_S
                with trio.move_on_after(self._config.provide_interval_s):
                    await self._lost.wait()
            else:
                await rendezvous.everybody()
                wait_s = min(2 * wait_s, self._config.provide_interval_s)
            await trio.sleep(wait_s * self._rng.uniform(*_JITTER))

    def _heard_of_self(self, outcome: Outcome, source: str) -> None:
        """Sign higher than a record of this node that it doesn't remember."""
        if outcome.peer != self._peer or source == self._peer:
            return
        self._own.outrun(outcome.sequence)
        if trio.current_time() >= self._outrun_s + _OUTRUN_GAP_S:
            self._outrun_s = trio.current_time()
            self._emit("directory.outrun", sequence=outcome.sequence, source=source)
            self._changed.set()

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened:
            self._catalogue.revive(peer)
        else:
            self._lost.set()


def open_directory(
    context: Context,
    *,
    sessions: Sessions,
    directory: Directory | None,
    capabilities: Callable[[], Sequence[Capability]],
) -> DirectoryService:
    """Return a node's, with what its owner lets it be for others."""
    return DirectoryService(
        identity=context.signer.identity,
        network=context.network,
        config=context.config.directory,
        clock=context.clock,
        sessions=sessions,
        directory=directory,
        rng=context.rng,
        emit=context.emit,
        addresses=context.transport.addresses,
        capabilities=capabilities,
        store=context.store,
        features=features_of(context.config),
    )


def _listed(feature: str) -> str:
    """Return under which name the DHT lists those that have ``feature``."""
    return f"mesh.{feature}"
