"""The layer contracts bite: each is broken by an import planted in a copy of the code.

That the code itself keeps them is checked by `make layers`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("meshnode", "protocol", "bootstrap", "simulations")
#: Which module, when it imports which other, is refused.
PLANTED = [
    ("protocol", "meshnode.errors"),
    ("protocol", "time"),
    ("protocol", "random"),
    ("protocol", "trio"),
    ("meshnode.ports", "meshnode.domain"),
    ("meshnode.domain", "meshnode.services"),
    ("meshnode.domain", "trio"),
    ("meshnode.domain", "os"),
    ("meshnode.services", "meshnode.adapters"),
    ("meshnode.services", "libp2p"),
    ("meshnode.services", "sqlite3"),
    ("meshnode.adapters", "meshnode.gateway"),
    ("meshnode.adapters", "meshnode.services"),
    ("meshnode.adapters", "meshnode.domain"),
    ("meshnode.gateway", "meshnode.adapters"),
    ("meshnode.gateway", "meshnode.services"),
    ("meshnode.gateway", "libp2p"),
    ("meshnode.app", "meshnode.cli"),
    ("meshnode.bench", "meshnode.cli"),
    ("simulations", "meshnode.adapters"),
    ("simulations", "meshnode.app"),
    ("simulations", "bootstrap"),
    ("simulations", "socket"),
    ("simulations", "libp2p"),
    ("bootstrap", "simulations"),
    ("meshnode.app", "bootstrap"),
]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says about the code with all of it planted."""
    copy = tmp_path_factory.mktemp("code")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package)
    for importer, imported in PLANTED:
        base = copy.joinpath(*importer.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        path.write_text(path.read_text() + f"import {imported}\n", encoding="utf-8")
    (copy / "meshnode" / "unheard_of.py").write_text('"""A module in no layer."""\n')
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout
    # One line, as a chain may be wrapped.
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(("importer", "imported"), PLANTED)
def test_a_planted_import_is_refused(complaints: str, importer: str, imported: str) -> None:
    assert f"{importer} -> {imported} (" in complaints


def test_a_module_in_no_layer_is_refused(complaints: str) -> None:
    assert "unheard_of" in complaints


def test_every_contract_is_broken_by_something_planted(complaints: str) -> None:
    assert " 0 kept, 9 broken." in complaints
