"""docs/jobs.md is run: its commands and its program do what the page says."""

import json
import re
import sys
from pathlib import Path

import pytest

from meshnode.adapters.agents.command import CommandAgent
from meshnode.adapters.agents.openai_compatible import OpenAICompatibleAgent
from meshnode.config import HostConfig
from meshnode.domain.replanning import LOOK_MS
from meshnode.services import job_terms, token_streams
from meshnode.services.job_terms import Terms
from protocol import limits
from protocol.graph import SubTask
from tests.documents.shell import blocks, run_commands, run_program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text("utf-8")
BLOCKS = blocks(PAGE)


@pytest.mark.timeout(120)
def test_the_program_sends_one_letter(tmp_path: Path) -> None:
    printed = run_program(BLOCKS["python"], tmp_path)
    said = re.search(r"The last but one line printed is `([^`]*)`", PAGE)
    assert said is not None
    *_, last_but_one, last = printed.splitlines()
    assert last_but_one == said[1]
    assert re.fullmatch(r"Job \w+ \(letter\) completed after .* and cost 0 of .* mc\.", last)


@pytest.mark.timeout(180)
def test_the_commands_run(tmp_path: Path) -> None:
    (tmp_path / "summaries.toml").write_text(BLOCKS["toml"])
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text("utf-8"))
    done = run_commands(BLOCKS["sh"], tmp_path, homes=["desk"])
    assert done.returncode == 0, done.stdout + done.stderr
    answer, again = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("answer", "again")
    )
    assert answer["job"] == again["job"], "the same key is the same job"
    said = done.stdout.splitlines()
    events = [json.loads(line) for line in said if line.startswith('{"seq"')]
    assert [event["seq"] for event in events] == [*range(3, events[-1]["seq"] + 1)]
    assert events[-1]["kind"] == "done"
    assert any(re.search(r" the job completed$", line) for line in said), said
    assert f"Job {answer['job']} completed after" in done.stdout
    assert "was the only one to choose from" in done.stdout
    told = said[said.index("In short") :]
    assert max(map(len, told)) <= 100


def test_its_limits_are_the_codes() -> None:
    section = PAGE.split("## Limits")[1].split("\n## ")[0]
    rows = {
        cells[0].strip(): [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", cells[1])]
        for line in section.splitlines()
        if line.startswith("| ") and (cells := line.strip("| ").split(" | "))
    }
    terms = Terms()
    assert rows["budget"] == [terms.budget_mc]
    assert rows["deadline"] == [terms.deadline_s, job_terms._DEADLINE_S_MAX / 86_400]
    assert rows["sub-tasks of a graph"] == [limits.SUBTASKS_MAX]
    assert rows["units of a job"] == [limits.BATCHES_MAX]
    assert rows["units of one sub-task at work at once"] == [limits.FAN_OUT_MAX]
    attempts = SubTask(id="a", capability="b@1", inputs={}).attempts_max
    assert rows["attempts at a unit"] == [attempts]
    assert (
        rows["times that a job is planned anew"][0] == limits.REPLANS_MAX == terms.replans_max
    )
    assert LOOK_MS == 2_000
    assert "these are looked for during two seconds" in PAGE
    assert rows["events of a job"] == [limits.EVENTS_MAX]
    assert rows["idempotency key"] == [job_terms._KEY_SIZE_MAX]
    assert f"`lease_s`, {HostConfig().lease_s:g} s" in PAGE
    assert f"the last {token_streams.KEPT_CHARS_MAX:,} characters" in PAGE


def test_what_agents_are_told_by_is_where_the_page_says() -> None:
    for where, code in (
        ("MESHNODE_IDEMPOTENCY_KEY", CommandAgent),
        ("Idempotency-Key", OpenAICompatibleAgent),
    ):
        assert f"`{where}`" in PAGE
        source = Path(sys.modules[code.__module__].__file__ or "").read_text("utf-8")
        assert f'"{where}"' in source


def test_each_field_of_streamed_text_is_in_its_table() -> None:
    section = PAGE.split("(`award.progress`):")[1].split("\n- ")[0]
    table = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert named | {"items_done"} == set(token_streams.Piece.__dataclass_fields__)
