"""``meshnode sandbox``: whether programs can be held on this machine."""

from meshnode.cli.options import Json
from meshnode.cli.printing import say_json


def sandbox(*, as_json: Json = False) -> None:
    """Say whether this machine has a sandbox for commands, by running something in it.

    Examples:
      meshnode sandbox
      meshnode sandbox --json

    The exit status is 1 where there is none, or one that doesn't hold.  Agents whose file
    says `sandbox = true` aren't hosted there.
    """
    from meshnode.adapters.bubblewrap import probe

    held_by = probe()
    if as_json:
        say_json({"available": True, "held_by": held_by})
    else:
        print(f"there is a sandbox here: {held_by}")
