"""What of a peer's record can be used here: its schemas and examples are bytes it chose.

The protocol takes them as they are (30-records.md), so they are looked at once, where a record
is taken: whoever reads it later may trust that a schema is one, and that an example is JSON.
"""

import msgspec

from meshnode.domain.graphs import check_capability
from meshnode.domain.values import is_canonical
from meshnode.errors import InputInvalid
from protocol.records import Capability, NodeRecord, Sample


def usable_record(record: NodeRecord) -> tuple[NodeRecord, tuple[str, ...]]:
    """Return ``record`` without what can't be used of its capabilities, and why."""
    usable: list[Capability] = []
    dropped: list[str] = []
    for capability in record.capabilities:
        try:
            check_capability(capability)
        except InputInvalid as exc:
            dropped.append(str(exc))
            continue
        examples = usable_samples(capability)
        if len(examples) < len(capability.examples):
            dropped.append(f"{capability.name}: an example is no canonical JSON")
            usable.append(msgspec.structs.replace(capability, examples=examples))
        else:
            usable.append(capability)
    if not dropped:
        return record, ()
    return msgspec.structs.replace(record, capabilities=usable), tuple(dropped)


def usable_samples(capability: Capability) -> list[Sample]:
    """Return the examples that are what they should be: RFC 8785 JSON."""
    return [
        sample
        for sample in capability.examples
        if is_canonical(sample.input) and is_canonical(sample.output)
    ]
