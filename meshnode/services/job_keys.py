"""What an idempotency key stands for: one job, and what that is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.domain.values import fingerprint
from meshnode.errors import KeyReused
from meshnode.ports import JsonValue
from meshnode.services.job_terms import Terms
from protocol.graph import TaskGraph, encode_graph
from protocol.keys import digest

#: Table: caller/idempotency key -> job id/fingerprint of what it is about.
KEYS: Final = "job_key"


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key with its caller, and the content that it is to stand for."""

    key: str
    content: str


def content_of(graph: TaskGraph, inputs: Mapping[str, JsonValue], terms: Terms) -> str:
    """Return the fingerprint of what one key stands for.

    The deadline isn't in it: who tries again has less time left than before.
    """
    work: JsonValue = terms.asked or {
        "graph": digest(encode_graph(graph)).hex(),
        "inputs": fingerprint(dict(inputs)),
    }
    return fingerprint({"work": work, "budget_mc": terms.budget_mc})


def same_job(known: bytes, content: str, key: str) -> str:
    """Return the job that a key stands for, if that is about ``content``.

    Raises:
        KeyReused: It isn't.
    """
    job, about = read_key(known)
    if about not in {"", content}:
        raise KeyReused(
            f"the key {key!r} is that of job {job}, whose work, inputs or budget are others",
            hint="take another key for another job",
        )
    return job


def read_key(raw: bytes) -> tuple[str, str]:
    """Return a key's job, and what that is about; nothing if an older version wrote it."""
    job, _, content = raw.decode().partition("/")
    return job, content
