"""Packaging: pins that are complete, names that are ours, recipes that are listed."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = ("meshnode", "protocol", "bootstrap", "simulations")
#: What runs in an environment of its own.
BESIDE = ROOT / "meshnode" / "bench" / "beside"
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.+!-]*)")


def project() -> dict[str, list[str]]:
    """Requirements of the project by extra; the core's are under the empty name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table = settings["project"]
    return {"": table["dependencies"], **table["optional-dependencies"]}


def pins() -> dict[str, str]:
    """Version by canonical name, from the constraints."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(match[1]): match[2]
        for line in lines
        if (match := PIN.fullmatch(line))
    }


def claimants(claims: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Other distributions that would put a package where one of ours is."""
    for name in OURS:
        for other in sorted(set(claims.get(name, ())) - {"meshnode"}):
            yield f"{other} installs a top-level {name!r}"


def unpinned(requirements: Sequence[str], pinned: Mapping[str, str]) -> Iterator[str]:
    """Whatever an install of ``requirements`` pulls in here that has no fitting pin."""
    todo = [Requirement(text) for text in requirements]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        if name not in pinned:
            yield f"{requirement} has no pin"
        elif not requirement.specifier.contains(pinned[name], prereleases=True):
            yield f"{requirement} refuses its pin {pinned[name]}"
        todo += _required_by(requirement)


def _required_by(requirement: Requirement) -> Iterator[Requirement]:
    try:
        declared = distribution(requirement.name).requires or ()
    except PackageNotFoundError:
        return
    for inner in map(Requirement, declared):
        extras = ("", *requirement.extras)
        if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
            yield inner


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Distributions by package; looked for once, as it takes seconds."""
    return packages_distributions()


def undeclared(path: str, source: str, declared: Collection[str]) -> Iterator[str]:
    """Third-party imports of a module that reach it only by luck of somebody's needs."""
    distributions = _distributions()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                roots = {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                roots = {module.partition(".")[0]}
            case _:
                continue
        for root in sorted(roots - sys.stdlib_module_names - set(OURS)):
            if not {canonicalize_name(name) for name in distributions.get(root, ())} & set(
                declared
            ):
                yield f"{path}:{node.lineno}: {root} is no declared dependency"


def test_what_our_packages_import_is_declared() -> None:
    texts = [text for extra, texts in project().items() if extra != "dev" for text in texts]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    complaints = [
        complaint
        for name in OURS
        for path in sorted((ROOT / name).rglob("*.py"))
        for complaint in undeclared(
            str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"), declared
        )
        if path.parent != BESIDE or not pinned_beside(complaint.split()[1])
    ]
    assert not complaints, "\n".join(complaints)


def pinned_beside(package: str) -> bool:
    """Whether a package comes with the environment that the benches make."""
    lines = (BESIDE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return any(canonicalize_name(line).startswith(canonicalize_name(package)) for line in lines)


def test_what_benches_measure_beside_us_is_pinned() -> None:
    lines = (BESIDE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.sub(r"\[[a-z-]+\]", "", line) for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not PIN.fullmatch(pin)] == []
    assert pinned_beside("autogen_core")
    assert not pinned_beside("networkx")


def test_an_undeclared_import_is_found() -> None:
    source = "import os, trio, networkx\nfrom protocol import keys\nfrom nowhere.x import y\n"
    assert list(undeclared("a.py", source, {"trio"})) == [
        "a.py:1: networkx is no declared dependency",
        "a.py:3: nowhere is no declared dependency",
    ]


def test_nobody_else_claims_a_top_level_name_of_ours() -> None:
    assert list(claimants(_distributions())) == []


def test_a_claimed_name_is_found() -> None:
    claims = {"protocol": ["meshnode", "grpc-things"], "bootstrap": ["meshnode"]}
    assert list(claimants(claims)) == ["grpc-things installs a top-level 'protocol'"]


@pytest.mark.parametrize("name", OURS)
def test_our_packages_are_imported_from_this_checkout(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")


def test_every_constraint_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(lines), "a package is pinned twice"
    assert lines == sorted(lines, key=str.lower)


@pytest.mark.parametrize("extra", project())
def test_the_constraints_pin_all_that_is_installed(extra: str) -> None:
    assert list(unpinned(project()[extra], pins())) == []


def test_a_missing_and_a_refused_pin_are_found() -> None:
    without_outcome = {name: pin for name, pin in pins().items() if name != "outcome"}
    assert list(unpinned(["trio"], without_outcome)) == ["outcome has no pin"]
    assert list(unpinned(["base58<1"], pins())) == [
        f"base58<1 refuses its pin {pins()['base58']}"
    ]


def test_make_alone_lists_every_recipe() -> None:
    listing = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE)
    assert "setup" in recipes
    assert re.findall(r"^  make ([a-z-]+) +\S", listing.stdout, re.MULTILINE) == recipes
