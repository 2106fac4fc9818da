"""Awards that are being done: written down, begun, finished.

An award is on the disk before it is begun, and its result before it is answered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from meshnode.domain.admission import No
from meshnode.domain.trust.buyers import beyond_cap
from meshnode.errors import Busy, StoreError
from meshnode.ports import Write
from meshnode.services.agents import AgentHost
from meshnode.services.award_records import AwardRecords
from meshnode.services.bodies import AwardBody, ResultBody
from meshnode.services.buyers import Purchaser, due_ms
from meshnode.services.context import Context
from meshnode.services.execution import Execution
from meshnode.services.executor import Executor
from meshnode.services.ledger import Ledger
from meshnode.services.served import Served
from protocol.codec import encode
from protocol.messages import Award

#: What a broker is told for which there is no room now.
FULL: Final = No("busy", "too much to do", retry_ms=1_000)
#: A result that the disk refused is written again after this, seconds.
_KEEP_S: Final = 1.0


class Workbench:
    """Every award of this node that isn't finished.

    Attributes:
        draining: No more are taken.
    """

    def __init__(
        self,
        context: Context,
        *,
        executor: Executor,
        records: AwardRecords,
        served: Served,
        ledger: Ledger,
        host: AgentHost,
    ) -> None:
        self.draining = False
        self._emit = context.emit
        self._config = context.config.host
        self._served = served
        self._ledger = ledger
        self._host = host
        self._executor = executor
        self._records = records
        self._running: dict[bytes, Execution] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def running(self) -> Mapping[bytes, Execution]:
        """What is being done, by the award's hash."""
        return self._running

    def work_in(self, nursery: trio.Nursery) -> None:
        """Do what is begun from now on in ``nursery``."""
        self._nursery = nursery

    def is_full(self, peer: str) -> bool:
        """Tell whether there is no room for another award of ``peer``."""
        held = sum(1 for execution in self._running.values() if execution.broker == peer)
        return (
            self.draining
            or len(self._running) >= self._config.awards_max
            or held >= self._config.per_peer_max
        )

    def busy(self, peer: str, award: Award) -> No | None:
        """Return why there is no room for ``award`` of ``peer``, or no time, if that is so."""
        if self.is_full(peer):
            return FULL
        if not award.wait_max_ms or (wait_ms := self.wait_ms(award.agent)) <= award.wait_max_ms:
            return None
        return No("crowded", f"it would wait for about {wait_ms} ms", retry_ms=wait_ms)

    def wait_ms(self, agent: str) -> int:
        """Return how long an award to ``agent`` would wait if it came now.

        0 for an unknown one.
        """
        if agent not in self._host.specs():
            return 0
        held: Counter[str] = Counter()
        for execution in self._running.values():
            if execution.answer is None:
                left = execution.award.items - execution.items_done
                held[execution.award.agent] += max(0, left)
        return self._host.wait_ms(agent, held)

    def unpaid(self, peer: str, more_mc: int) -> No | None:
        """Return why ``peer`` may not have ``more_mc`` of work on credit, if that is so."""
        if not self._ledger.limits_owed:
            return None
        working_mc = self.in_work_mc((peer,))
        return self._ledger.unwilling(peer, working_mc=working_mc, more_mc=more_mc)

    def unsettled(self, purchaser: Purchaser, price_mc: int, calls: int) -> No | None:
        """Return why ``calls`` of ``price_mc`` each would be too much to lose, if so."""
        if not purchaser.first_mc or not price_mc:
            return None
        return beyond_cap(
            self._ledger.buyers.buyer(purchaser.keys),
            in_work_mc=self.in_work_mc(purchaser.keys),
            call_mc=price_mc,
            calls=calls,
            first_mc=purchaser.first_mc,
        )

    def in_work_mc(self, peers: Sequence[str]) -> int:
        """Return what is being done for ``peers``, by the awards' price caps."""
        held = (one for one in self._running.values() if one.broker in peers)
        return sum(one.award.price_cap_mc for one in held if one.answer is None)

    async def take(self, execution: Execution, body: AwardBody) -> None:
        """Write an award down and begin it; it counts as running, and taken, from the call on.

        Raises:
            StoreError: The disk doesn't take it: it is not taken.
            Busy: This node is not running.
        """
        self._running[execution.name] = execution
        award, broker = execution.award, execution.broker
        self._served.won(award.proposal)
        self._served.count(broker, award.capability, awarded=1, calls=award.items)
        try:
            row = self._served.row(broker, award.capability)
            await self._records.take(execution.name, body, row)
            self.begin(execution)
        except BaseException:
            self._served.count(broker, award.capability, awarded=-1, calls=-award.items)
            self._forget(execution)
            raise

    def begin(self, execution: Execution) -> None:
        """Start the work on what is written down.

        Raises:
            Busy: This node is not running.
        """
        if self._nursery is None:
            raise Busy("this node")
        self._running[execution.name] = execution
        self._nursery.start_soon(self._execute, execution)

    def _forget(self, execution: Execution) -> None:
        self._running.pop(execution.name, None)
        execution.finish()

    async def _execute(self, execution: Execution) -> None:
        header = execution.award.h
        self._emit(
            "award.begun",
            award=execution.name.hex(),
            broker=header.issuer,
            job=header.job,
            unit=header.subtask,
        )
        try:
            result, receipt = await self._executor.execute(execution)
            body = encode(ResultBody(b"", result, receipt))
            ended = {execution.ended: 1}
            self._served.count(header.issuer, execution.award.capability, **ended)
            row = self._served.row(header.issuer, execution.award.capability)
            sold = (
                execution.name,
                header.issuer,
                execution.price_mc,
                due_ms(execution.award),
            )
            out = self._ledger.buyers.delivery(*sold)
            await self._keep(execution, body, [*execution.keeps, *row, *out])
            self._ledger.buyers.delivered(*sold)
            execution.answer = body
        finally:
            self._forget(execution)

    async def _keep(self, execution: Execution, body: bytes, keeps: Sequence[Write]) -> None:
        """Write a result down, as long as it takes: without it the work would be done again."""
        while True:
            try:
                await self._records.finish(execution.name, body, keeps)
            except StoreError as exc:
                self._emit("award.unsaved", award=execution.name.hex(), why=str(exc))
                await trio.sleep(_KEEP_S)
            else:
                return
