"""The wheel: built from the tracked files, it installs and runs outside the checkout.

The clean environment holds the wheel alone.  It borrows the dependencies of the
environment that runs the tests through a path file; path files found along a borrowed path
are not followed, so the editable install of this checkout is out of reach.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("meshnode", "protocol", "bootstrap", "simulations")
WHERE = """
import importlib, json
from importlib.metadata import distribution
print(json.dumps({
    "version": distribution("meshnode").version,
    "modules": {name: importlib.import_module(name).__file__ for name in %r},
}))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    """Run a program without the variables that would lead it back to the checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _tracked() -> list[str]:
    listing = _run("git", "ls-files", "-z", cwd=ROOT)
    return [path for path in listing.split("\0") if path and (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files, whatever else lies around in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for path in _tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    target = tmp_path_factory.mktemp("dist")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        target,
    ]
    _run(*build, source, cwd=source)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a clean environment with the wheel in it."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    site = Path(
        _run(
            python, "-c", "import sysconfig as s; print(s.get_path('purelib'))", cwd=home
        ).strip()
    )
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)), encoding="utf-8")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
    ]
    _run(*pip, "--no-deps", "--no-index", "--ignore-installed", wheel, cwd=home)
    return python.parent


def test_the_wheel_holds_the_tracked_files_of_our_packages_and_nothing_else(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {path for path in _tracked() if path.split("/")[0] in OURS}
    assert {f"{package}/py.typed" for package in OURS} <= names


def test_specification_and_vectors_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [n for n in names if n.startswith("protocol/spec/") and n.endswith(".md")]
    assert [n for n in names if n.startswith("protocol/vectors/") and n.endswith(".json")]


def test_the_wheel_says_its_licence_and_its_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(info))
        licence = archive.read(info.replace("METADATA", "licenses/LICENSE"))
    assert metadata["License-Expression"] == "MIT"
    assert licence == (ROOT / "LICENSE").read_bytes()
    extras = {"cluster", "dev", "llm", "mcp", "pytest", "specialists"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def test_our_packages_are_imported_from_the_clean_environment(
    clean_bin: Path, tmp_path: Path
) -> None:
    found = json.loads(_run(clean_bin / "python", "-c", WHERE % (OURS,), cwd=tmp_path))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert found["version"] == settings["project"]["version"]
    for name in OURS:
        assert Path(found["modules"][name]).is_relative_to(clean_bin.parent), name


def test_the_command_line_runs_in_the_clean_environment(
    clean_bin: Path, tmp_path: Path
) -> None:
    assert "Commands:" in _run(clean_bin / "meshnode", "--help", cwd=tmp_path)
    told = json.loads(_run(clean_bin / "meshnode", "version", "--json", cwd=tmp_path))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert told["version"] == settings["project"]["version"]
    # What runs a node loads there too, with what it needs beside the code.
    listed = _run(clean_bin / "python", "-m", "meshnode", "up", "--help", cwd=tmp_path)
    assert "--join" in listed
    _run(clean_bin / "python", "-c", "import bootstrap.__main__", cwd=tmp_path)
