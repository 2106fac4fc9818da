"""What a job's plan holds beside plain values: work that is done again, and what is known."""

import msgspec

from protocol.receipts import Verdict


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """A sub-task that another job had begun with the same inputs, and this one does again.

    It is cut in the same way, so that each item keeps its idempotency key.

    Attributes:
        job: Whose keys its items have.
        sizes: Items of each batch; one batch of -1 is a single call.
    """

    job: str
    sizes: list[int]


class GoldPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the plan of a gold task knows, and what is said so that it looks like another.

    Attributes:
        expected: The right outputs of its sub-task's calls, as RFC 8785 JSON; none if it is
            asked for what the answer shows, and every answer is taken.
        numbered: Its awards have numbers of replicas, as where answers are compared.
        verdict: Of a right answer, where no check of the graph has one.
        check: What is said to be behind that.
        price_max_mc: Whoever asks more for a call isn't awarded it: the price that was looked
            at when it was decided to ask.  Not told to anybody, and None for no limit, as in
            the plans of older versions.
    """

    expected: list[bytes]
    numbered: bool = False
    verdict: Verdict = "unverified"
    check: str = ""
    price_max_mc: int | None = None
