"""The real files that the demo reviews: read from a folder, sorted into documents and code."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue

DOCUMENTS: Final = frozenset({".md", ".rst", ".txt", ".adoc"})
CODE: Final = frozenset({".py", ".pyi"})

#: More than this of a kind, and the demo says which it left out.
FILES_MAX: Final = 400
#: A larger file is left out.
FILE_BYTES_MAX: Final = 200_000

_PASSED_OVER: Final = frozenset(
    {"node_modules", "__pycache__", "build", "dist", "site-packages", "venv", "vendor"}
)


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds for the demo.

    Attributes:
        path: The folder.
        documents: (relative path, text), sorted by path.
        code: The same for code.
        left_out: (relative path, why).
    """

    path: Path
    documents: list[tuple[str, str]]
    code: list[tuple[str, str]]
    left_out: list[tuple[str, str]]

    def inputs(self) -> dict[str, JsonValue]:
        """Return the inputs of the demo's graph."""
        return {
            "title": f"Review of {self.path.resolve().name}",
            "documents": [{"path": path, "text": text} for path, text in self.documents],
            "document_names": [{"path": path} for path, _ in self.documents],
            "sources": [[text] for _, text in self.documents],
            "files": [{"path": path, "text": text} for path, text in self.code],
            "file_names": [{"path": path} for path, _ in self.code],
        }


def own_repository() -> Path:
    """Return the checkout that this code runs from, or the installed package's folder."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    return checkout if (checkout / "pyproject.toml").is_file() else package


def read_folder(path: Path) -> Folder:
    """Read the documents and code under ``path``.

    Raises:
        InputInvalid: No such folder, or nothing in it to review.
    """
    if not path.is_dir():
        raise InputInvalid(f"{path} is not a folder", hint="give --path a folder")
    folder = Folder(path, [], [], [])
    for file in sorted(_walk(path)):
        kind = file.suffix.lower()
        if kind not in DOCUMENTS | CODE:
            continue
        name = file.relative_to(path).as_posix()
        found = folder.documents if kind in DOCUMENTS else folder.code
        text = _text(file)
        if isinstance(text, _Reason):
            folder.left_out.append((name, text))
        elif len(found) >= FILES_MAX:
            folder.left_out.append((name, f"more than {FILES_MAX} of its kind"))
        else:
            found.append((name, text))
    if not folder.documents and not folder.code:
        raise InputInvalid(
            f"there is nothing to review in {path}",
            hint=f"it looks for {' '.join(sorted(DOCUMENTS | CODE))} files",
        )
    return folder


class _Reason(str):
    """Why a file was left out."""

    __slots__ = ()


def _text(file: Path) -> str:
    """Return the file's text, or a :class:`_Reason`."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            return _Reason(f"larger than {FILE_BYTES_MAX} bytes")
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return _Reason("not UTF-8")
    except OSError as exc:
        return _Reason(exc.strerror or "unreadable")
    return text if text.strip() else _Reason("empty")


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files under ``path``; hidden and generated folders are passed over."""
    for folder, names, files in os.walk(path):
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".") and name not in _PASSED_OVER and "egg-info" not in name
        )
        yield from (Path(folder) / name for name in files if not name.startswith("."))
