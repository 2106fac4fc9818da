"""The process behind :mod:`meshnode.adapters.embedder`; run as a script.

A line of JSON texts in, a line of vectors out.  It ends when its stdin does, or when
nothing was asked for a while.
"""

import json
import select
import sys
from pathlib import Path
from typing import Any


def main(idle_s: float) -> None:
    """Answer until idle."""
    # A script's folder comes first in its path: ours holds no modules to import by name.
    sys.path[0] = str(Path(__file__).parents[2])
    from meshnode.adapters.agents.embeddings import load_minilm  # noqa: PLC0415 - heavy
    from meshnode.errors import AgentError  # noqa: PLC0415 - not before the path is mended

    while select.select([sys.stdin], [], [], idle_s)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        reply: dict[str, Any]
        try:
            rows = load_minilm().encode(json.loads(line))
            reply = {"vectors": [[float(number) for number in row] for row in rows]}
        except (AgentError, ImportError) as error:
            reply = {"error": str(error), "hint": getattr(error, "hint", "")}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
