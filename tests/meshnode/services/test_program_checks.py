"""Programs of others are tried: right ones pass, wrong and lying ones don't."""

from typing import Any

import pytest

from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.domain.programs import (
    CASES_MAX,
    PROGRAM_BYTES_MAX,
    Case,
    calls_of,
    failed_case,
    read_cases,
)
from meshnode.errors import AgentError, AgentTimeout, InputInvalid, NoSandbox
from meshnode.ports import Confinement, Finished, Sandbox
from meshnode.services.program_checks import try_program
from protocol.graph import Likeness

DOUBLE = [Case("double", [2], 4), Case("double", ["a"], "aa")]


async def tried(
    program: str, cases: list[Case] = DOUBLE, *, sandbox: Sandbox | None = None, **how: Any
) -> tuple[str | None, list[str]]:
    """Return what is said of a program, and why it wasn't tried."""
    told: list[str] = []

    def emit(name: str, /, **fields: object) -> None:
        assert name == "check.not_tried"
        told.append(str(fields["why"]))

    said = await try_program(program, cases, sandbox or Bubblewrap(), emit=emit, **how)
    return said, told


async def test_a_right_program_passes_whatever_it_prints() -> None:
    assert await tried("print('noise')\ndef double(x):\n    print(x)\n    return x * 2") == (
        "",
        [],
    )


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def double(x): return x + 2", "the program failed: TypeError"),
        ("def double(x): return 4", "case 1, double: it gave '4'"),
        ("def halve(x): return x", "has no attribute 'double'"),
        ("def double(x", "the program failed: SyntaxError"),
        ("", "has no attribute 'double'"),
        ("\ud800", "is no text"),
        ("def double(x): return {1}", "the program failed: TypeError"),
        ("def double(x): return float('nan')", "can't be read"),
        # What would pass where the judge shares the program's process:
        ("import os; os._exit(0)", "can't be read"),
        ("import sys; sys.exit(0)", "can't be read"),
        ("class All:\n  def __eq__(s, o): return True\ndouble = lambda x: All()", "TypeError"),
        ("import os; os.write(1, b'[4]'); os._exit(0)", "no result for each case"),
        ("import json; json.dump = lambda *a: None\ndef double(x): pass", "can't be read"),
        ("import os; os.write(1, b'[' * 90000); os._exit(0)", "can't be read"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "the program failed"),
        ("open('/usr/escaped', 'w')", "the program failed: OSError"),
        ("while True: print('x' * 10**6, file=__import__('sys').__stdout__)", "was ended"),
        ("x = [bytearray(10**8) for _ in range(9)]", "the program failed: MemoryError"),
    ],
)
async def test_a_wrong_or_lying_program_is_told(program: str, why: str) -> None:
    said, told = await tried(program)
    assert said is not None
    assert why in said
    assert told == []


async def test_results_are_compared_as_declared() -> None:
    thirds = [Case("third", [1], 0.333)]
    program = "def third(x): return x / 3"
    assert (await tried(program, thirds))[0]
    near = Likeness("numeric", relative_ppm=2_000)
    assert (await tried(program, thirds, kind=near))[0] == ""


class Told:
    """A sandbox that ends a program as it is told."""

    def __init__(
        self, found: Exception | Finished, *, checked: Exception | None = None
    ) -> None:
        self.found, self.checked = found, checked
        self.asked: list[Any] = []

    async def check(self, within: Confinement, program: str = "") -> str:
        self.asked.append((program, within))
        if self.checked is not None:
            raise self.checked
        return "nothing"

    async def run(self, argv: Any, within: Confinement, **_: Any) -> Finished:
        self.asked.append((argv[0], within))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_without_a_sandbox_nothing_runs_and_nothing_is_known() -> None:
    told: list[Any] = []
    said = await try_program("x", DOUBLE, None, emit=lambda *a, **k: told.append((a, k)))
    assert said is None
    assert told == [(("check.not_tried",), {"why": "this node has no sandbox"})]
    for gone in (
        Told(NoSandbox("it went")),
        Told(Finished(0, b"[4]", ""), checked=NoSandbox("it went")),
    ):
        assert await tried("x", sandbox=gone) == (None, ["it went"])


@pytest.mark.parametrize("end", [AgentTimeout("stopped after 60 s"), AgentError("held more")])
async def test_one_that_has_to_be_ended_is_wrong(end: Exception) -> None:
    assert await tried("x", sandbox=Told(end)) == (f"the program was ended: {end}", [])


async def test_one_that_is_too_long_is_not_run() -> None:
    sandbox = Told(Finished(0, b"", ""))
    said, _ = await tried("#" * (PROGRAM_BYTES_MAX + 1), sandbox=sandbox)
    assert said is not None
    assert "262145 bytes of 262144" in said
    assert sandbox.asked == []


async def test_it_runs_where_it_was_seen_that_it_can_and_has_no_network() -> None:
    sandbox = Told(Finished(0, b'[4, "aa"]', ""))
    assert (await tried("x", sandbox=sandbox))[0] == ""
    seen, ran = sandbox.asked
    assert seen == ran
    assert not seen[1].network
    assert seen[1].reads == ()


def test_what_should_come_out_is_not_told_to_the_program() -> None:
    assert calls_of(DOUBLE) == b'[{"args":[2],"call":"double"},{"args":["a"],"call":"double"}]'


@pytest.mark.parametrize(
    "value",
    [
        None, {}, [], [1], [{}], [{"call": "f", "args": []}],
        [{"call": "f", "args": [], "gives": 1, "more": 1}],
        [{"call": 1, "args": [], "gives": 1}],
        [{"call": "__import__", "args": ["os"], "gives": 1}],
        [{"call": "a.b", "args": [], "gives": 1}],
        [{"call": "f", "args": {}, "gives": 1}],
        [{"call": "f", "args": [], "gives": 1}] * (CASES_MAX + 1),
    ],
)  # fmt: skip
def test_what_are_no_cases_is_refused(value: Any) -> None:
    with pytest.raises(InputInvalid, match="case"):
        read_cases(value)


def test_cases_are_read() -> None:
    assert read_cases([{"call": "double", "args": [2], "gives": 4}]) == DOUBLE[:1]


@pytest.mark.parametrize("told", [b"", b"4", b"[4]", b'[4, "aa", 1]', b"[4, NaN]", b"\xff"])
def test_results_that_are_none_are_told(told: bytes) -> None:
    assert failed_case(DOUBLE, told)
