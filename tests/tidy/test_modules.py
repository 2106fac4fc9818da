"""House rules for source files that no linter has.

Each rule is a function from source to complaints.  It is run over every module, and over
a planted violation that it has to find.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("meshnode", "protocol", "bootstrap", "simulations")
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
#: Names that say nothing about what is inside.
VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "base", "misc"}
#: A broad handler hands the failure to something of such a name, or raises.
REPORTS = re.compile(r"emit|report|supervise")
IGNORE = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b", re.IGNORECASE)
NOQA = re.compile(r"#\s*noqa: [A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)* - \S")
TYPE_IGNORE = re.compile(r"#\s*type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]")

Rule = Callable[[Path, str], Iterator[str]]


def says_what_it_is_for(path: Path, source: str) -> Iterator[str]:
    """Every module has a docstring."""
    if not ast.get_docstring(ast.parse(source)):
        yield f"{path}: no docstring"


def is_small(path: Path, source: str) -> Iterator[str]:
    """Modules and functions stay below their limits."""
    if (lines := source.count("\n")) > MODULE_LINES_MAX:
        yield f"{path}: {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"


def has_a_telling_name(path: Path, source: str) -> Iterator[str]:
    """A module is named after what it holds."""
    del source
    if set(path.stem.strip("_").split("_")) & VAGUE or path.parent.name in VAGUE:
        yield f"{path}: a name that says nothing"


def swallows_nothing(path: Path, source: str) -> Iterator[str]:
    """A broad handler raises or reports."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ExceptHandler() if _is_broad(node.type) and not _answers(node):
                yield f"{path}:{node.lineno}: a broad handler that neither raises nor reports"
            case ast.Call(func=func, args=args) if _name(func) == "suppress":
                if any(_is_broad(arg) for arg in args):
                    yield f"{path}:{node.lineno}: suppresses everything"
            case _:
                pass


def _is_broad(caught: ast.expr | None) -> bool:
    match caught:
        case None:
            return True
        case ast.Tuple(elts=parts):
            return any(_is_broad(part) for part in parts)
        case _:
            broad = {"Exception", "BaseException", "ExceptionGroup", "BaseExceptionGroup"}
            return _name(caught) in broad


def _answers(handler: ast.ExceptHandler) -> bool:
    """Whether the handler itself (not a function that it defines) raises or reports."""
    todo: list[ast.AST] = list(handler.body)
    while todo:
        node = todo.pop()
        match node:
            case ast.Raise():
                return True
            case ast.Call(func=func) if REPORTS.search(_name(func)):
                return True
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case _:
                todo.extend(ast.iter_child_nodes(node))
    return False


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def explains_its_ignores(path: Path, source: str) -> Iterator[str]:
    """An ignore names its codes, and `noqa` its reason after them."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or not IGNORE.search(token.string):
            continue
        form = NOQA if "noqa" in token.string.lower() else TYPE_IGNORE
        if not form.search(token.string):
            yield f"{path}:{token.start[0]}: {token.string} lacks its code or its reason"


def takes_chance_as_a_parameter(path: Path, source: str) -> Iterator[str]:
    """The domain knows `random.Random` as a type, and the protocol not even that."""
    if path.parts[:2] != ("meshnode", "domain") and path.parts[0] != "protocol":
        return
    tree = ast.parse(source)
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node not in typing_only and "random" in _imported(node):
            yield f"{path}:{node.lineno}: imports random while it runs"  # type: ignore[attr-defined]


def _imported(node: ast.AST) -> set[str]:
    match node:
        case ast.Import(names=names):
            return {alias.name.partition(".")[0] for alias in names}
        case ast.ImportFrom(module=str(module), level=0):
            return {module.partition(".")[0]}
        case _:
            return set()


def waits_for_events(path: Path, source: str) -> Iterator[str]:
    """A test awaits what happens; it sleeps only in virtual time.

    A world (``simulations``) brings its own clock; tests of whole processes (``e2e``) poll
    in real time.
    """
    if path.parts[0] != "tests":
        return
    virtual = (
        {"simulations", "e2e"} & set(path.parts)
        or "autojump_clock" in source
        or "MockClock" in source
    )
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="sleep")):
                yield f"{path}:{node.lineno}: time.sleep"
            case ast.ImportFrom(module="time", names=names) if "sleep" in {
                alias.name for alias in names
            }:
                yield f"{path}:{node.lineno}: time.sleep"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="trio"), attr="sleep")):
                if not virtual:
                    yield f"{path}:{node.lineno}: trio.sleep in real time"
            case _:
                pass


def skips_nothing(path: Path, source: str) -> Iterator[str]:
    """What a test needs it makes, or it fails: a suite must not quietly stop testing."""
    if path.parts[0] != "tests":
        return
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr="skip" | "skipif" | "importorskip"):
                yield f"{path}:{node.lineno}: skips"
            case ast.ImportFrom(module="pytest", names=names) if {"skip", "importorskip"} & {
                alias.name for alias in names
            }:
                yield f"{path}:{node.lineno}: skips"
            case _:
                pass


RULES: tuple[Rule, ...] = (
    says_what_it_is_for,
    is_small,
    has_a_telling_name,
    swallows_nothing,
    explains_its_ignores,
    takes_chance_as_a_parameter,
    waits_for_events,
    skips_nothing,
)
MODULES = sorted(
    path.relative_to(ROOT)
    for name in (*PACKAGES, "tests")
    for path in (ROOT / name).rglob("*.py")
)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_the_house_rules(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    complaints = [complaint for rule in RULES for complaint in rule(path, source)]
    assert not complaints, "\n".join(complaints)


DOMAIN = "meshnode/domain/plan.py"
TEST = "tests/meshnode/test_plan.py"
LONG = "def f():\n" + "    pass\n" * FUNCTION_LINES_MAX
PLANTED: list[tuple[Rule, str, str]] = [
    (says_what_it_is_for, DOMAIN, "x = 1\n"),
    (is_small, DOMAIN, "x = 1\n" * (MODULE_LINES_MAX + 1)),
    (is_small, DOMAIN, LONG),
    (is_small, DOMAIN, "async " + LONG),
    (has_a_telling_name, "meshnode/domain/utils.py", ""),
    (has_a_telling_name, "meshnode/session_manager.py", ""),
    (has_a_telling_name, "meshnode/common/plan.py", ""),
    (swallows_nothing, DOMAIN, "try: f()\nexcept Exception: pass\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept: log()\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept (OSError, BaseException): pass\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept* Exception: pass\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept builtins.Exception: pass\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept Exception:\n  def g(): raise\n"),
    (swallows_nothing, DOMAIN, "with contextlib.suppress(Exception): f()\n"),
    (explains_its_ignores, DOMAIN, "f()  # noqa\n"),
    (explains_its_ignores, DOMAIN, "f()  # noqa: S603\n"),
    (explains_its_ignores, DOMAIN, "f()  # NOQA: S603 because\n"),
    (explains_its_ignores, DOMAIN, "f()  # type: ignore\n"),
    (takes_chance_as_a_parameter, DOMAIN, "import random\n"),
    (takes_chance_as_a_parameter, DOMAIN, "from random import Random\n"),
    (takes_chance_as_a_parameter, "protocol/keys.py", "import random\n"),
    (waits_for_events, TEST, "import time\ntime.sleep(1)\n"),
    (waits_for_events, TEST, "from time import sleep\n"),
    (waits_for_events, TEST, "async def test(): await trio.sleep(1)\n"),
    (waits_for_events, "tests/e2e/test_demo.py", "time.sleep(1)\n"),
    (skips_nothing, TEST, "pytest.skip('no bwrap')\n"),
    (skips_nothing, TEST, "@pytest.mark.skipif(True, reason='x')\ndef test(): ...\n"),
    (skips_nothing, TEST, "httpx = pytest.importorskip('httpx')\n"),
    (skips_nothing, TEST, "from pytest import skip\n"),
]
ALLOWED: list[tuple[Rule, str, str]] = [
    (says_what_it_is_for, DOMAIN, '"""What it is for."""\n'),
    (is_small, DOMAIN, "def f():\n" + "    pass\n" * (FUNCTION_LINES_MAX - 1)),
    (has_a_telling_name, "meshnode/domain/baseline.py", ""),
    (swallows_nothing, DOMAIN, "try: f()\nexcept OSError: pass\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept Exception:\n  if x: raise\n"),
    (swallows_nothing, DOMAIN, "try: f()\nexcept Exception as e: self._emit(e)\n"),
    (explains_its_ignores, DOMAIN, "f()  # noqa: S603, S607 - our own program\n"),
    (explains_its_ignores, DOMAIN, "f()  # type: ignore[attr-defined]\n"),
    (explains_its_ignores, DOMAIN, "x = '# noqa'\n"),
    (
        takes_chance_as_a_parameter,
        DOMAIN,
        "if TYPE_CHECKING:\n    from random import Random\n",
    ),
    (takes_chance_as_a_parameter, "simulations/world.py", "import random\n"),
    (waits_for_events, TEST, "async def test(autojump_clock): await trio.sleep(1)\n"),
    (waits_for_events, "tests/e2e/test_demo.py", "async def f(): await trio.sleep(1)\n"),
    (skips_nothing, DOMAIN, "skip.skip()\n"),
]


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_a_rule_finds_a_planted_violation(rule: Rule, path: str, source: str) -> None:
    assert len(list(rule(Path(path), source))) == 1


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED)
def test_a_rule_lets_the_allowed_pass(rule: Rule, path: str, source: str) -> None:
    assert list(rule(Path(path), source)) == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_modules_are_found() -> None:
    assert Path("meshnode/ports.py") in MODULES
    assert Path("tests/tidy/test_modules.py") in MODULES
