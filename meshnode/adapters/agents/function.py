"""A Python function as an agent.

One decorator; the schemas come from the type hints, the description from the
docstring.  What kind of function it is decides how it runs:

* ``async def`` runs in the node's own loop and is cancelled like anything else there;
* an async generator too: each ``str`` it yields is progress, its last yield (a value or
  an :class:`Output`) is the result;
* a plain ``def`` runs in a thread.  **Python can't stop a thread**: when the call is
  cancelled the node goes on at once and drops the result, but the function runs to its
  end, and its thread counts against ``concurrency_max`` until then.  So a node is never
  flooded with abandoned threads, and a function that never returns blocks this agent
  and nothing else.  Work that must really stop belongs into a child process
  (:class:`~meshnode.adapters.agents.command.CommandAgent`).  In a simulation there are
  no threads, and it runs in place (:meth:`FunctionAgent.inline`).
"""

import copy
import importlib
import importlib.util
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial, update_wrapper
from typing import Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast

import trio

from meshnode.adapters.agents.declaring import read_likeness
from meshnode.adapters.agents.signature import read_signature, to_json
from meshnode.errors import AgentError, ConfigError
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, Example, JsonValue, Output
from protocol.likeness import Likeness

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_CAPABILITY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*@[1-9][0-9]{0,5}")


class Terms(TypedDict, total=False):
    """What :func:`agent` may be told beside the capability; see :class:`AgentSpec`.

    Attributes:
        returns: Type of the result, where the hints don't say (generators of ``Output``).
        needs: Modules that must be importable before the first run.
        install_hint: What to do when one of them isn't.
        prepare: Called once in a thread by ``open``, to load what is slow to load.
        like: When two of its answers say the same: ``normalised``, or a table such as
            ``{"kind": "numeric", "relative_ppm": 1000}``.
        checks: Kinds of checks that its outputs are made for: ``quoted``, ``program``.
    """

    name: str
    description: str
    examples: Sequence[Example]
    price_mc: int
    concurrency_max: int
    timeout_s: float
    input_bytes_max: int
    output_bytes_max: int
    model_family: str
    deterministic: bool
    returns: object
    needs: Sequence[str]
    install_hint: str
    prepare: Callable[[], object]
    like: Likeness | str | Mapping[str, object]
    checks: Sequence[str]


class FunctionAgent(Generic[P, R]):
    """An :class:`~meshnode.ports.Agent` that calls a Python function.

    Calling it calls the function itself, so that decorated code stays testable.
    """

    def __init__(
        self, function: Callable[P, R], capability: str, **terms: Unpack[Terms]
    ) -> None:
        """Wrap ``function``; see :func:`agent`."""
        if inspect.isgeneratorfunction(function):
            raise ConfigError(
                f"{function.__qualname__} is a plain generator",
                hint="write 'async def': only async generators can stream",
            )
        update_wrapper(self, function)
        self._function = function
        self._needs = tuple(terms.pop("needs", ()))
        self._install_hint = terms.pop("install_hint", "")
        self._prepare = terms.pop("prepare", None)
        self._signature = read_signature(function, terms.pop("returns", None))
        self._spec = _spec(function, capability, terms, self._signature[:2])
        self._threads: trio.CapacityLimiter | None = trio.CapacityLimiter(
            self._spec.concurrency_max
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function as if it had never been decorated."""
        return self._function(*args, **kwargs)

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    @property
    def needs(self) -> tuple[str, ...]:
        """Modules that must be importable before the first run."""
        return self._needs

    def inline(self) -> "FunctionAgent[P, R]":
        """Return one that runs a plain function in place, and not in a thread.

        It holds up everything else meanwhile: what a simulation wants, whose time stands
        still then, and a node doesn't.
        """
        twin = copy.copy(self)
        twin._threads = None  # noqa: SLF001 - it is one of us
        return twin

    async def open(self) -> None:
        """Check that what it needs is installed, then load it.

        Raises:
            AgentError: A module is missing, or loading failed.
        """
        require(self._spec.name, self._needs, hint=self._install_hint)
        if self._prepare is not None:
            try:
                if self._threads is None:
                    self._prepare()
                else:
                    await trio.to_thread.run_sync(self._prepare)
            except Exception as error:
                raise self._failed(error) from error

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Call the function with the fields of ``value`` as its arguments.

        Raises:
            AgentError: The input doesn't fit its parameters, or it raised.
        """
        bound = partial(self._function, **self._signature.bind(value, call))
        if inspect.isasyncgenfunction(self._function):
            stream = cast("Callable[[], AsyncGenerator[object, None]]", bound)()
            async with aclosing(self._stream(stream)) as items:
                async for item in items:
                    yield item
            return
        try:
            if inspect.iscoroutinefunction(self._function):
                result = await cast("Callable[[], Awaitable[object]]", bound)()
            elif self._threads is None:
                result = cast("Callable[[], object]", bound)()
            else:
                result = await trio.to_thread.run_sync(
                    self._in_thread, bound, abandon_on_cancel=True, limiter=self._threads
                )
        except Exception as error:
            raise self._failed(error) from error
        yield _output(result)

    def _in_thread(self, bound: Callable[[], object]) -> object:
        """Call the function; whatever it raises ends its own call only."""
        try:
            return bound()
        except KeyboardInterrupt as error:
            # Ctrl-C comes to the main thread: this one is the function's own, and would
            # end the node as if its owner had wanted that.
            raise self._failed(error) from error

    async def _stream(
        self, stream: AsyncGenerator[object, None]
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Pass each item on when the next has come: only the last one is the result."""
        nothing = object()
        held: object = nothing
        async with aclosing(stream):
            while True:
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    raise self._failed(error) from error
                if held is not nothing:
                    yield self._chunk(held)
                held = item
        if held is nothing:
            raise AgentError(f"{self._spec.name} ended without yielding a result")
        yield _output(held)

    def _chunk(self, item: object) -> Chunk:
        if isinstance(item, Chunk):
            return item
        if isinstance(item, str):
            return Chunk(item)
        raise AgentError(
            f"{self._spec.name} yielded {type(item).__name__} before its last item",
            hint="yield str for progress; only the last yield is the result",
        )

    def _failed(self, error: BaseException) -> AgentError:
        if isinstance(error, AgentError):
            return error
        return AgentError(f"{self._spec.name} raised {type(error).__name__}: {error}")

    async def aclose(self) -> None:
        """Nothing is held: a function keeps no process."""


def agent(
    capability: str, **terms: Unpack[Terms]
) -> Callable[[Callable[P, R]], FunctionAgent[P, R]]:
    """Make an agent of the function below.

    Example::

        @agent("text.reversal@1", price_mc=1)
        def reverse(text: str) -> str:
            \"\"\"Return the text backwards.\"\"\"
            return text[::-1]

    A parameter hinted :class:`AgentCall` is given the call (idempotency key,
    deadline) and is no part of the input.

    Args:
        capability: What it can do, ``text.reversal@1``.
        **terms: Price, limits, examples, …: see :class:`Terms`.

    Raises:
        ConfigError: A parameter's type can't be told or can't be JSON.
    """

    def decorate(function: Callable[P, R]) -> FunctionAgent[P, R]:
        return FunctionAgent(function, capability, **terms)

    return decorate


def load_function(target: str) -> Agent:
    """Import ``module:name`` and return the agent found there.

    ``name`` is a decorated function, any other :class:`Agent`, or a function without
    parameters that returns one.

    Raises:
        ConfigError: It can't be imported or is no agent; names ``target``.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ConfigError(f"{target!r} names no function", hint="write module:name")
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{target}: can't import {module_name}: {error}",
            hint="modules are looked for in this folder and on PYTHONPATH",
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{target}: there is no {part!r} in {module_name}")
        found = getattr(found, part)
    if _is_factory(found):
        found = cast("Callable[[], object]", found)()
    if isinstance(found, type) or not isinstance(found, Agent):
        raise ConfigError(f"{target} is no agent", hint="decorate it with @agent(...)")
    return found


def require(name: str, modules: Sequence[str], *, hint: str = "") -> None:
    """Raise when one of ``modules`` isn't installed; imports none of them.

    Raises:
        AgentError: Names the agent and what it lacks.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise AgentError(
            f"{name} needs {', '.join(missing)}, which isn't installed",
            hint=hint or f"install {', '.join(missing)}",
        )


def _is_factory(found: object) -> bool:
    return (
        inspect.isfunction(found)
        and not inspect.signature(found).parameters
        and found.__annotations__.get("return") not in (None, str, int, float, bool)
    )


def _output(result: object) -> Output:
    if isinstance(result, Output):
        return Output(to_json(result.value), result.usage)
    return Output(to_json(result))


def _spec(
    function: Callable[..., object],
    capability: str,
    terms: Terms,
    schemas: tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]],
) -> AgentSpec:
    name = terms.pop("name", function.__name__.strip("_").lower())
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} can't name an agent", hint="use [a-z0-9_-], at most 64")
    if not _CAPABILITY.fullmatch(capability):
        raise ConfigError(
            f"{capability!r} is no capability", hint="write it like text.summarization@1"
        )
    documentation = (inspect.getdoc(function) or "").split("\n\n")[0]
    description = terms.pop("description", " ".join(documentation.split()))
    input_schema, output_schema = schemas
    try:
        like = read_likeness(terms.pop("like", None))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}", hint=error.hint) from error
    return AgentSpec(  # type: ignore[misc]  # what is left of terms are AgentSpec's fields
        name=name,
        capability=capability,
        description=description,
        input_schema=input_schema,
        output_schema=output_schema,
        like=like,
        **terms,  # type: ignore[arg-type]  # like was taken out
    )
