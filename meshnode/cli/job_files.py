"""What a job is made of and leaves behind, on this machine's disk.

Graph, input files and inputs are read, and the folder for results is made, before
anything is asked of a node: a misspelt name costs nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshnode.cli.failure import CommandFailed
from meshnode.domain.graph_files import parse_graph
from meshnode.domain.values import parse
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import TaskGraph

#: The job input that ``--file F`` adds to.
FILES: Final = "files"
OUTPUTS_FILE: Final = "outputs.json"
PROVENANCE_FILE: Final = "provenance.journal"
JOB_FILE: Final = "job.json"

_NAMED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,63})=(.*)", re.DOTALL)
_BYTES_MAX: Final = 32 * 1024 * 1024


def read_graph(path: Path) -> TaskGraph:
    """Return the graph in the file at ``path``.

    Raises:
        GraphError: It is none; names line or sub-task.
        CommandFailed: It can't be read.
    """
    return parse_graph(_text(path), where=str(path))


def read_inputs(files: Sequence[str], inputs: Sequence[str]) -> dict[str, JsonValue]:
    """Return a job's inputs by name.

    Args:
        files: ``PATH`` or ``NAME=PATH``: adds ``{"path", "text"}`` to the list NAME.
        inputs: ``NAME=JSON``.

    Raises:
        CommandFailed: A file can't be read, an input isn't JSON, or one is given twice.
    """
    lists: dict[str, list[JsonValue]] = {}
    for entry in files:
        name, path = _named_file(entry)
        lists.setdefault(name, []).append({"path": path.as_posix(), "text": _text(path)})
    found: dict[str, JsonValue] = dict(lists)
    for entry in inputs:
        match = _NAMED.fullmatch(entry)
        if match is None:
            raise CommandFailed(
                f"--input {entry[:60]!r} is not NAME=JSON", hint="such as --input 'limit=3'"
            )
        name = match[1]
        if name in found:
            raise CommandFailed(f"the input {name!r} is given twice", hint="give it once")
        found[name] = _json(name, match[2])
    return found


def _named_file(entry: str) -> tuple[str, Path]:
    match = _NAMED.fullmatch(entry)
    # A file's own name may hold a "=".
    if match is None or Path(entry).is_file():
        return FILES, Path(entry)
    return match[1], Path(match[2])


def _json(name: str, text: str) -> JsonValue:
    try:
        return parse(text.encode())
    except (InputInvalid, UnicodeError) as error:
        raise CommandFailed(
            f"--input {name}: {error}",
            hint=f"text needs quotes of its own: --input '{name}=\"…\"'",
            told="input.invalid",
        ) from error


def _text(path: Path) -> str:
    try:
        with path.expanduser().open("rb") as stream:
            data = stream.read(_BYTES_MAX + 1)
    except OSError as error:
        raise CommandFailed(
            f"{path} can't be read: {error.strerror}", hint="check its name", told="cli.no_file"
        ) from error
    if len(data) > _BYTES_MAX:
        raise CommandFailed(f"{path} has over {_BYTES_MAX} bytes", hint="cut it in parts")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"{path} is not UTF-8 text", hint="only text can be given as a file"
        ) from error


def make_folder(path: Path) -> Path:
    """Make the folder for results, and see that it can be written.

    Raises:
        CommandFailed: It can't.
    """
    folder = path.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".meshnode"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandFailed(
            f"--out {path} can't be written: {error.strerror}", hint="choose another folder"
        ) from error
    return folder


def keep(folder: Path, job: Mapping[str, Any], outputs: object, provenance: bytes) -> Path:
    """Write what a job left into ``folder``; return where its provenance is."""
    journal = folder / PROVENANCE_FILE
    journal.write_bytes(provenance)
    for name, value in ((JOB_FILE, job), (OUTPUTS_FILE, outputs)):
        if value is not None:
            text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
    return journal


def read_assurance(text: str) -> str | float:
    """Return how sure answers are to be: a probability, or its name."""
    try:
        return float(text)
    except ValueError:
        return text


def read_standbys(text: str) -> int | list[str]:
    """Return how many standbys are wanted, or which: a number, or PeerIds between commas."""
    if text.isdecimal():
        return int(text)
    return [peer.strip() for peer in text.split(",") if peer.strip()]
