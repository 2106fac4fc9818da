"""What stands between this node and its mesh, said so that its owner can act.

Nobody to talk to, or a clock that is off, makes other things fail in ways that don't
name it: whoever reports such a failure adds what is known here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from meshnode.config import NodeConfig
from meshnode.domain.clocks import clock_trouble
from meshnode.errors import NoProvider
from meshnode.ports import Emit
from meshnode.services.sessions import Sessions

#: Clocks are compared this often, and soon after somebody new is there; seconds.  Whatever
#: else goes wrong compares them at once.
_LOOK_S: Final = 300.0
#: A listener measures the other clock with the first heartbeat.
_SOON_S: Final = 4.0


class Advice:
    """See the module."""

    def __init__(self, sessions: Sessions, config: NodeConfig, *, emit: Emit) -> None:
        self._sessions = sessions
        self._mdns = config.directory.mdns
        self._joins = config.join_addresses
        self._emit = emit
        self._told = ""
        self._somebody = trio.Event()
        sessions.on_change(self._session_changed)

    def clock(self) -> str:
        """Say whose clock is wrong, or nothing."""
        return clock_trouble(self._sessions.offsets_ms())

    def text(self) -> str:
        """Say what is wrong with this node's place in the mesh, or nothing."""
        if self._sessions.connected():
            return self.clock()
        if self._joins:
            return (
                f"this node has no peers: {self._joins[0]} doesn't answer; check that its"
                " node runs and can be reached from here"
            )
        invite = "get an invite from one of a mesh (`meshnode invite`) and start with --join"
        if self._mdns:
            return f"this node has no peers, and sees none on this network: {invite} INVITE"
        return (
            f"this node has no peers: {invite} INVITE, or find those on this network"
            " with --mdns"
        )

    @contextmanager
    def given(self) -> Iterator[None]:
        """Add it to the hint of a :class:`NoProvider` that passes."""
        try:
            yield
        except NoProvider as exc:
            if advice := self.text():
                exc.hint = f"{advice}; {exc.hint}" if exc.hint else advice
            raise

    async def run(self) -> None:
        """Report a clock that is off, once each time that it changes, until cancelled."""
        while True:
            self._somebody = trio.Event()
            trouble = self.clock()
            if trouble and trouble != self._told:
                self._emit("clock.off", why=trouble)
            self._told = trouble
            if not self._sessions.connected():
                await self._somebody.wait()
            with trio.move_on_after(_LOOK_S):
                await self._somebody.wait()
                await trio.sleep(_SOON_S)

    def _session_changed(self, _peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened:
            self._somebody.set()
