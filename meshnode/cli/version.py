"""``meshnode version``."""

import platform

from meshnode.cli.options import Json
from meshnode.cli.printing import say_json


def version(*, as_json: Json = False) -> None:
    """Print the version.

    Example:
      meshnode version --json
    """
    from importlib.metadata import version as version_of

    parts = {
        "version": own_version(),
        "libp2p": version_of("libp2p"),
        "python": platform.python_version(),
    }
    if as_json:
        say_json(parts)
    else:
        print(
            f"meshnode {parts['version']} (libp2p {parts['libp2p']}, Python {parts['python']})"
        )


def own_version() -> str:
    """Return the version of this package."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of("meshnode")
    except PackageNotFoundError:
        return "unknown"  # it runs without being installed
