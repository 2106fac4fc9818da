"""Agents as files: what is written is read back, and what is wrong is named."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshnode.adapters.agents import embeddings, models
from meshnode.adapters.agents.agent_files import (
    AgentFile,
    agent_of,
    load_agents,
    read_agent_file,
    remove_agent_file,
    write_agent_file,
)
from meshnode.errors import ConfigError
from meshnode.ports import Measures
from protocol.likeness import Likeness
from tests.meshnode.adapters.agents.running import output

MODEL = AgentFile(
    kind="openai",
    name="writer",
    capability="text.generation@1",
    base_url="http://127.0.0.1:1/v1",
    model="tiny",
    key_env="TINY_KEY",
    price_mc=3,
    concurrency_max=2,
    examples=[{"input": {"prompt": "Hi"}, "output": {"text": "Hello"}}],
)
CONFINED: dict[str, Any] = {
    "kind": "command",
    "command": ["/bin/cat"],
    "input_schema": {"type": "object"},
    "output_schema": {"type": "object"},
    "sandbox": True,
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write_agent_file(tmp_path, MODEL)
    assert read_agent_file(path) == MODEL
    (agent,) = load_agents(tmp_path)
    assert (agent.spec.name, agent.spec.price_mc, agent.spec.concurrency_max) == (
        "writer",
        3,
        2,
    )
    assert remove_agent_file(tmp_path, "writer")
    assert not remove_agent_file(tmp_path, "writer")
    assert not remove_agent_file(tmp_path, "../writer")
    assert load_agents(tmp_path) == []


def test_what_was_measured_is_part_of_the_offer(tmp_path: Path) -> None:
    measured = {"latency_ms": 700, "tokens_per_s": 30, "context_tokens": 8192}
    file = msgspec.structs.replace(MODEL, measured_calls=9, measured_at_ms=7, **measured)
    write_agent_file(tmp_path, file)
    (agent,) = load_agents(tmp_path)
    assert agent.spec.measures == Measures(samples=9, at_ms=7, **measured)
    undated = msgspec.structs.replace(file, measured_at_ms=0)
    assert agent_of(undated, where="x").spec.measures == Measures()
    assert agent_of(MODEL, where="x").spec.measures == Measures()


def test_a_file_says_by_what_its_answers_can_be_checked(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "like": {"kind": "numeric", "relative_ppm": 7},
        "checks": ["quoted"],
    }
    write_agent_file(tmp_path, msgspec.structs.replace(MODEL, **told, deterministic=True))
    (agent,) = load_agents(tmp_path)
    assert agent.spec.like == Likeness("numeric", relative_ppm=7)
    assert (agent.spec.checks, agent.spec.deterministic) == (["quoted"], True)
    with pytest.raises(ConfigError, match="fuzzy"):
        agent_of(msgspec.structs.replace(MODEL, like="fuzzy"), where="x")


def test_the_owners_limits_for_an_agent_are_part_of_the_offer() -> None:
    limits: dict[str, Any] = {"input_bytes_max": 100, "timeout_s": 7.0, "concurrency_max": 3}
    schema: dict[str, Any] = {"type": "object"}
    command = AgentFile(
        kind="command", name="x", capability="a.b@1", command=["true"],
        input_schema=schema, output_schema=schema, **limits,
    )  # fmt: skip
    for file in (msgspec.structs.replace(MODEL, **limits), command):
        spec = agent_of(file, where="x.toml").spec
        assert {name: getattr(spec, name) for name in limits} == limits


def test_a_home_without_agents_has_none(tmp_path: Path) -> None:
    assert load_agents(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind = 'openai'\nmodle = 'x'", "did you mean 'model'"),
        ("kind = 'magic'", "kind"),
        ("price_mc = 1", "kind"),
        ("kind =", "is not TOML"),
        ("kind = 'openai'\nprice_mc = 'free'", "price_mc"),
    ],
)
def test_a_wrong_file_is_named(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "agents" / "bad.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.toml") as caught:
        load_agents(tmp_path)
    assert why in caught.value.line()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "No Name"}, "can't name an agent"),
        ({"capability": "generation"}, "is no capability"),
        ({"base_url": "nowhere"}, "x.toml: base_url 'nowhere' is no URL"),
        ({"latency_ms": -1}, "can't be negative"),
        ({"input_bytes_max": 0}, "x.toml: input_bytes_max is 0"),
        ({"timeout_s": math.nan}, "timeout_s is nan"),
        ({"concurrency_max": 0}, "concurrency_max is 0"),
        ({"examples": [{"input": 1}]}, "example 1"),
        ({"sandbox": True}, "only a command runs in a sandbox"),
        ({"sandbox_network": True}, "sandbox_network says nothing without a sandbox"),
        ({"sandbox_processes": 2}, "sandbox_processes says nothing without a sandbox"),
        ({**CONFINED, "sandbox_processes": 0}, "sandbox_processes is out of range"),
        ({**CONFINED, "sandbox_memory_bytes": 2**63}, "sandbox_memory_bytes is out of range"),
        ({**CONFINED, "sandbox_reads": ["data"]}, "x.toml: sandbox = true, and 'data' can't"),
        ({**CONFINED, "sandbox_reads": ["/"]}, "sandbox = true, and / can't be read"),
        ({**CONFINED, "command": ["/no/such"]}, "/no/such can't be run in the sandbox"),
        ({"kind": "command"}, "no command is named"),
        ({"kind": "command", "command": ["true"]}, "needs input_schema"),
        ({"kind": "function", "target": "no_such_module:f"}, "no_such_module"),
        ({"kind": "specialist", "target": "sumarization"}, "no specialist"),
    ],
)
def test_an_agent_that_cant_be_is_told(changes: dict[str, Any], why: str) -> None:
    fields = {"name": "x", "capability": "a.b@1", "base_url": "http://h/v1", "model": "m"}
    with pytest.raises(ConfigError, match=why):
        agent_of(AgentFile(**{"kind": "openai", **fields, **changes}), where="x.toml")


async def test_a_function_is_found_where_it_was_wrapped(tmp_path: Path) -> None:
    (tmp_path / "wrapped_module_x.py").write_text(
        "from meshnode import agent\n"
        "@agent('text.echo@1')\n"
        "def echo(text: str) -> str:\n"
        "    '''Echo.'''\n"
        "    return text\n"
    )
    file = AgentFile(kind="function", target="wrapped_module_x:echo", path=str(tmp_path))
    assert agent_of(file, where="x").spec.capability == "text.echo@1"


def test_embedded_models_are_known_and_whole() -> None:
    assert models.MINILM_SHA256 == embeddings.WEIGHTS_SHA256
    for model in models.MODELS.values():
        file = models.weights(model)
        assert file is not None
        assert models.is_whole(model, file)
    with pytest.raises(ConfigError, match="there is no model 'x'"):
        models.find("x")


async def test_a_command_runs_in_its_sandbox(tmp_path: Path) -> None:
    script = "cat /dev/stdin; [ ! -e /root ] && [ ! -e /home ]"
    file = AgentFile(**{
        **CONFINED, "name": "x", "capability": "a.b@1", "command": ["/bin/sh", "-c", script],
        "sandbox_reads": ["/usr/share"], "sandbox_processes": 5,
    })  # fmt: skip
    write_agent_file(tmp_path, file)
    (agent,) = load_agents(tmp_path)
    await agent.open()
    assert await output(agent, {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("shown", ["", "home", "home/agents"])
def test_the_nodes_home_is_shown_in_no_sandbox(shown: str, tmp_path: Path) -> None:
    file = AgentFile(**CONFINED, name="x", capability="a.b@1", sandbox_reads=["/elsewhere"])
    write_agent_file(
        tmp_path / "home", msgspec.structs.replace(file, sandbox_reads=[str(tmp_path / shown)])
    )
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for home in ("home", "link"):
        with pytest.raises(ConfigError, match="where the node's keys are"):
            load_agents(tmp_path / home)


def test_what_is_to_run_in_a_sandbox_is_not_hosted_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_agent_file(tmp_path, AgentFile(**CONFINED, name="x", capability="a.b@1"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"x\.toml: sandbox = true, and there is no sandbox"):
        load_agents(tmp_path)
