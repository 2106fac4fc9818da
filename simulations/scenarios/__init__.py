"""One file, one story: given, when, then.

A module that has a ``SCENARIO``, or a TOML file, is a scenario of that name, with dashes:
``flash_crowd.py`` is ``flash-crowd``.  Nothing lists them: to put one here is enough.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from meshnode.errors import ConfigError
from simulations.scenario import Scenario, checked, parse_scenario


def names() -> list[str]:
    """Return what scenarios there are, in alphabetical order."""
    return sorted({_dashed(path.stem) for path in _files()} | set(_modules()))


def named(name: str) -> Scenario:
    """Return the scenario called ``name``, as :func:`names` has it or as its file is called.

    Raises:
        ConfigError: There is none; names those that are near.
    """
    wanted = _dashed(name)
    modules = _modules()
    if wanted in modules:
        return checked(modules[wanted], where=wanted)
    for path in _files():
        if _dashed(path.stem) == wanted:
            return parse_scenario(path.read_text("utf-8"), where=path.name)
    known = names()
    near = get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise ConfigError(f"there is no scenario {name!r}", hint=hint)


def scenario_at(path: Path) -> Scenario:
    """Return the scenario that a user's TOML file holds.

    Raises:
        ConfigError: It can't be read, or holds none.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise ConfigError(
            f"{path} can't be read: {exc.strerror}",
            hint="`meshnode simulate` lists the scenarios that come with it",
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text", hint="a scenario is TOML") from exc
    return parse_scenario(text, where=str(path))


def first_sentence(story: str) -> str:
    """Return what a story is called in a list: its first sentence, on one line."""
    text = " ".join(story.split())
    sentence = re.match(r".+?[.!?](?=\s|$)", text)
    return sentence[0] if sentence else text


def _modules() -> dict[str, Scenario]:
    found = (
        (module.name, getattr(import_module(f"{__name__}.{module.name}"), "SCENARIO", None))
        for module in iter_modules(__path__)
    )
    return {_dashed(name): one for name, one in found if isinstance(one, Scenario)}


def _files() -> Iterator[Path]:
    for folder in __path__:
        yield from sorted(Path(folder).glob("*.toml"))


def _dashed(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")
