"""Programs of others are run, in a sandbox or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from meshnode.domain.programs import (
    CALLER,
    HARNESS,
    PROGRAM,
    PROGRAM_BYTES_MAX,
    Case,
    calls_of,
    failed_case,
)
from meshnode.domain.values import sendable
from meshnode.errors import AgentError, NoSandbox
from meshnode.ports import Confinement, Emit, Sandbox
from protocol.graph import EXACT, Likeness

#: What a program may take for all its cases.
WITHIN: Final = Confinement(
    timeout_s=60.0,
    output_bytes_max=1024 * 1024,
    memory_bytes_max=512 * 1024 * 1024,
    cpu_s_max=20,
    processes_max=16,
    disk_bytes_max=16 * 1024 * 1024,
)
#: The interpreter, as the system has it.  Isolated: it looks at no variables and no user.
_PYTHON: Final = ("/usr/bin/python3", "-I", CALLER)
_SAID_CHARACTERS: Final = 200


async def try_program(
    program: str,
    cases: Sequence[Case],
    sandbox: Sandbox | None,
    *,
    kind: Likeness = EXACT,
    emit: Emit,
) -> str | None:
    """Return what is wrong with a program, nothing if all cases are right, None if unknown.

    Whatever ends a program that has begun is the program's fault.

    Args:
        program: Python source.
        cases: What it is tried on.
        sandbox: Where it runs; None where there is none, and then nothing does.
        kind: How results are compared.
        emit: Told why a program couldn't be tried.
    """
    try:
        source = program.encode()
    except UnicodeEncodeError:
        return "the program is no text"
    if len(source) > PROGRAM_BYTES_MAX:
        return f"the program has {len(source)} bytes of {PROGRAM_BYTES_MAX} allowed"
    if sandbox is None:
        emit("check.not_tried", why="this node has no sandbox")
        return None
    within = replace(WITHIN, files={PROGRAM: source, CALLER: HARNESS})
    try:
        await sandbox.check(within, _PYTHON[0])
        finished = await sandbox.run(_PYTHON, within, stdin=calls_of(cases))
    except NoSandbox as exc:
        emit("check.not_tried", why=str(exc))
        return None
    except AgentError as exc:
        return f"the program was ended: {sendable(str(exc))}"
    if finished.returncode != 0:
        said = finished.stderr_tail.splitlines()[-1:]
        return f"the program failed: {sendable(''.join(said)[:_SAID_CHARACTERS])}"
    return failed_case(cases, finished.stdout, kind)
