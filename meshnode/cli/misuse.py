"""A command that was written wrongly: what is wrong, and where it is explained.

The command line library says what it found in words of its own, with "see --help" for
everything.  A person is told which command's help, and, where a command is missing, which
there are.
"""

import re
from typing import Any, Final

#: Beginning of what the library says of a value -> what is said here.
_VALUES: Final = (
    (re.compile(r"Input should be a valid integer\b.*"), "this should be a whole number"),
    (re.compile(r"Input should be a valid number\b.*"), "this should be a number"),
    (
        re.compile(r"Input should be greater than or equal to (\S+)"),
        r"this should be \1 or more",
    ),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"this should be \1 or less"),
)
#: What is said where a command is missing; with --json that is found out first.
_NO_COMMAND: Final = frozenset({"Missing command.", "No such option: --json"})
_PREFIX: Final = "Invalid value: "


def misuse(error: BaseException, said: str) -> tuple[str, str]:
    """Return message and hint for an error of the command line library.

    Args:
        error: Which knows the command that it is about, unless the library lost it.
        said: What it says itself.
    """
    context: Any = getattr(error, "ctx", None)
    path: str = getattr(context, "command_path", "meshnode")
    commands: dict[str, object] = getattr(getattr(context, "command", None), "commands", {})
    see = f"see `{path} --help`"
    if commands and said in _NO_COMMAND:
        return f"`{path}` needs a command: {', '.join(commands)}", see
    for found, instead in _VALUES:
        said = found.sub(instead, said)
    return said.removeprefix(_PREFIX), see
