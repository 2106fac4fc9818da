"""What a reader must answer to a vector: a value, or the error code of its refusal."""

from typing import Any, Final

Case = tuple[str, dict[str, Any], bytes, Any]
H = bytes.fromhex

MALFORMED: Final = {"refused": "MALFORMED"}
TOO_LARGE: Final = {"refused": "TOO_LARGE"}
BAD_SIGNATURE: Final = {"refused": "BAD_SIGNATURE"}
EXPIRED: Final = {"refused": "EXPIRED"}
OUT_OF_TURN: Final = {"refused": "OUT_OF_TURN"}
UNKNOWN_TYPE: Final = {"refused": "UNKNOWN_TYPE"}
WRONG_NETWORK: Final = {"refused": "WRONG_NETWORK"}
WRONG_AUDIENCE: Final = {"refused": "WRONG_AUDIENCE"}
REFUSED: Final = {"refused": "REFUSED"}
STALE: Final = {"refused": "STALE"}
CREDIT: Final = {"refused": "CREDIT"}


def ok(value: Any = None) -> dict[str, Any]:
    """Accepted, with what was read."""
    return {"value": value}
