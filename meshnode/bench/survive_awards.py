"""Which awards were begun, and how often, as the nodes' own logs have it.

Stores tell what came of an award, and not whether it was done more than once.  A contractor
begins each once in a life; one that dies in the middle begins it again in the next, which
is why an agent gets a key for its own effects, and never after its result is on the disk.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_BEGUN: Final = "award.begun"


def check_awards(folder: Path) -> Iterator[str]:
    """Yield each award that a node of ``folder`` began twice in one life, a line each."""
    for log in sorted(folder.glob("*.log")):
        begun = Counter[tuple[int, str]]()
        life = number = 0
        for event in _events(log):
            life += event["number"] <= number  # events are counted anew in each life
            number = event["number"]
            if event["event"] == _BEGUN:
                begun[life, str(event["fields"]["award"])] += 1
        for (_, award), times in begun.items():
            if times > 1:
                yield f"{log.stem} began award {award[:12]} {times} times in one life"


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield what a log says, without lines that a death cut short, or of another kind."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "number" in event:
                yield event
