"""``meshnode config``: a node's settings as a file that explains itself."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.options import Home, Json, home_of
from meshnode.cli.printing import console, plain, say_json, table

if TYPE_CHECKING:
    import msgspec

CONFIG_FILE: Final = "node.toml"
_WIDTH: Final = 88


def init(
    *,
    home: Home = "",
    force: Annotated[bool, typer.Option("--force", help="Over one that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write HOME/node.toml: every setting, explained, at its default and commented out.

    `meshnode up` reads it; options and environment come first.

    Examples:
      meshnode config init
      meshnode config init --home desk
    """
    from meshnode.cli.failure import CommandFailed

    path = home_of(home) / CONFIG_FILE
    if path.exists() and not force:
        raise CommandFailed(f"{path} is there already", hint="edit it, or --force")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise CommandFailed(
            f"{path} can't be written: {error.strerror}", hint="check who owns the folder"
        ) from error
    if as_json:
        say_json({"file": str(path)})
    else:
        print(f"{path}: uncomment what you change, then `meshnode config check`")


def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="HOME/node.toml.")] = "",
    *,
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Check a file of settings; names the setting that is wrong, and the nearest right name.

    Examples:
      meshnode config check
      meshnode config check other.toml
    """
    from meshnode.cli.settings import Given, settings

    path = Path(file).expanduser() if file else home_of(home) / CONFIG_FILE
    refuse_unknown(path)
    settings(Given(file=str(path)), env={})
    if as_json:
        say_json({"file": str(path), "ok": True})
    else:
        print(f"{path} is in order")


def show(*, home: Home = "", as_json: Json = False) -> None:
    """Show every setting that holds for a node of this home, and where it comes from.

    Examples:
      meshnode config show
      MESHNODE_HTTP__PORT=8000 meshnode config show --json
    """
    from meshnode.cli.settings import Given, settings

    folder = home_of(home)
    path = folder / CONFIG_FILE
    file = str(path) if path.is_file() else ""
    told = settings(Given(file=file, home=str(folder)))
    said = _raw(path) if file else {}
    rows = [
        {"setting": name, "value": value, "from": _origin(name, said)}
        for name, value in _flat(told)
    ]
    if as_json:
        say_json({"file": file or None, "settings": rows})
        return
    shown = [(row["setting"], plain(row["value"], size_max=60), row["from"]) for row in rows]
    console().print(table(("setting", "value", "from"), shown))


# --- the template -----------------------------------------------------------------------


def template() -> str:
    """Return the file with every setting: made of the settings' own descriptions."""
    from meshnode.config import NodeConfig

    lines = [
        "# Settings of a meshnode node.",
        "# What is commented out is the default.  An environment variable comes before a",
        "# setting ($MESHNODE_HTTP__PORT before port of [http]), an option before both.",
        "",
    ]
    tables: list[str] = []
    for name, value, about in _fields(NodeConfig()):
        if _is_struct(value):
            tables += ["", *_comment(_summary(value)), f"[{name}]"]
            for inner, default, said in _fields(value):
                tables += ["", *_comment(said), f"# {inner} = {_toml(default)}"]
        else:
            lines += [*_comment(about), f"# {name} = {_toml(value)}", ""]
    return "\n".join([*lines[:-1], *tables]) + "\n"


def _fields(struct: "msgspec.Struct") -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and description of each setting."""
    about = descriptions(type(struct))
    for name in struct.__struct_fields__:
        yield name, getattr(struct, name), about.get(name, "")


def descriptions(kind: type) -> dict[str, str]:
    """Return what the docstring of ``kind`` says of each attribute."""
    _, _, attributes = (kind.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        text = line.strip()
        head, colon, rest = text.partition(": ")
        if colon and head.isidentifier() and line.startswith("        ") and line[8] != " ":
            name = head
            found[name] = rest
        elif name and text:
            found[name] += f" {text}"
    return found


def _summary(struct: "msgspec.Struct") -> str:
    return (type(struct).__doc__ or "").strip().splitlines()[0]


def _is_struct(value: object) -> bool:
    return hasattr(value, "__struct_fields__")


def _comment(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text.replace("``", ""), _WIDTH)]


def _toml(value: object) -> str:
    import tomli_w

    plain_value = list(value) if isinstance(value, tuple) else value
    text = tomli_w.dumps({"x": plain_value}).strip().removeprefix("x = ")
    if not isinstance(plain_value, list):
        return text
    return " ".join(text.split()).replace(", ]", "]").replace("[ ", "[")


# --- what holds -------------------------------------------------------------------------


def _raw(path: Path) -> dict[str, Any]:
    import tomllib

    from meshnode.errors import ConfigError

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", hint="meshnode config init writes one"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="mend that line") from error


def refuse_unknown(path: Path) -> None:
    """Refuse a setting that there is not, with the nearest that there is.

    Raises:
        ConfigError: Names it.
    """
    from meshnode.config import NodeConfig
    from meshnode.errors import ConfigError

    known = {name for name, _ in _flat(NodeConfig())}
    heads = {name.partition(".")[0] for name in known}
    for name in _names(_raw(path)):
        if name in known or name in heads:
            continue
        near = get_close_matches(name, sorted(known | heads), n=1)
        raise ConfigError(
            f"{path}: there is no setting {name!r}"
            + (f" (did you mean {near[0]!r}?)" if near else ""),
            hint="meshnode config show lists them",
        )


def _names(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, value in raw.items():
        if isinstance(value, dict):
            yield name
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name


def _flat(struct: "msgspec.Struct") -> Iterator[tuple[str, Any]]:
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if _is_struct(value):
            for inner, deep in _flat(value):
                yield f"{name}.{inner}", deep
        else:
            yield name, list(value) if isinstance(value, tuple) else value


def _origin(name: str, said: Mapping[str, Any]) -> str:
    from meshnode.config import ENV_PREFIX

    variable = ENV_PREFIX + name.upper().replace(".", "__")
    if name == "home":
        return "option or environment" if os.environ.get(variable) else "option or default"
    if variable in os.environ:
        return f"${variable}"
    return "file" if name in set(_names(said)) else "default"
