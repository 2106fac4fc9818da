"""Writes protocol/vectors/*.json: ``python -m tests.protocol.make_vectors``.

Bytes are made here, from fixed keys; what a reader must answer is *not* asked of the
reader but stands beside each case, as reasoned from the specification.  A test checks
that the files are what this writes, and runs every case.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.protocol import vector_apps as apps
from tests.protocol import vector_charter as charter
from tests.protocol import vector_graphs as graphs
from tests.protocol import vector_lifecycle as lifecycle
from tests.protocol import vector_mail as mail
from tests.protocol import vector_members as members
from tests.protocol import vector_orders as orders
from tests.protocol import vector_reputation as reputation
from tests.protocol import vector_signed as signed
from tests.protocol import vector_wire as wire
from tests.protocol import vector_work as work

FOLDER: Final = Path(__file__).parents[2] / "protocol" / "vectors"

FILES: Final = {
    "codec": ("10-codec.md", wire.codec_cases),
    "framing": ("10-codec.md", wire.framing_cases),
    "keys": ("20-envelopes.md", wire.keys_cases),
    "envelopes": ("20-envelopes.md", wire.envelope_cases),
    "lifecycle": ("22-lifecycle.md", lifecycle.lifecycle_cases),
    "app_keys": ("24-app-keys.md", apps.app_cases),
    "membership": ("25-membership.md", members.membership_cases),
    "invites": ("25-membership.md", members.invite_cases),
    "records": ("30-records.md", signed.record_cases),
    "work": ("32-work.md", work.work_cases),
    "catalogue": ("35-catalogue.md", wire.catalogue_cases),
    "graphs": ("40-graphs.md", graphs.graph_cases),
    "session": ("50-sessions.md", wire.session_cases),
    "contracts": ("60-contracts.md", signed.contract_cases),
    "receipts": ("60-contracts.md", signed.receipt_cases),
    "settlements": ("65-settlements.md", signed.settlement_cases),
    "artifacts": ("70-artifacts.md", wire.artifact_cases),
    "journal": ("80-journal.md", signed.journal_cases),
    "mail": ("90-mail.md", mail.mail_cases),
    "orders": ("92-orders.md", orders.order_cases),
    "reputation": ("95-reputation.md", reputation.reputation_cases),
    "charter": ("85-failover.md", charter.charter_cases),
    "shipping": ("86-shipping.md", charter.shipping_cases),
}


def vectors() -> Iterator[tuple[Path, str]]:
    """Each file with its text."""
    for name, (spec, make) in FILES.items():
        document = {
            "spec": f"protocol/spec/{spec}",
            "cases": [
                {
                    "id": f"{name}/{number}",
                    "why": why,
                    "inputs": inputs,
                    "bytes": data.hex(),
                    "result": result,
                }
                for number, (why, inputs, data, result) in enumerate(make(), start=1)
            ],
        }
        yield (
            FOLDER / f"{name}.json",
            json.dumps(document, indent=1, ensure_ascii=False, sort_keys=False) + "\n",
        )


if __name__ == "__main__":
    for path, text in vectors():
        path.write_text(text, encoding="utf-8")
