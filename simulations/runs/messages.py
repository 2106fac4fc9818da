"""What a worker says of the take that it plays."""

from typing import Final

import msgspec

from simulations.outcome import Outcome


class Progressed(msgspec.Struct, frozen=True, tag="progressed"):
    """It is so far.

    Attributes:
        done_s: Virtual time of the load, seconds.
        all_s: All of it.
    """

    done_s: float
    all_s: float


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """It was played, and this came of it."""

    outcome: Outcome


ENCODER: Final = msgspec.msgpack.Encoder()
DECODER: Final = msgspec.msgpack.Decoder(Progressed | Ended)
