"""docs/sandbox.md: its settings are the code's, its agent is one, its command runs."""

import re
from pathlib import Path

import pytest
import trio

from meshnode.adapters.agents.agent_files import AgentFile, agent_of, read_agent_file
from meshnode.adapters.agents.confined_command import ConfinedCommandAgent
from meshnode.adapters.bubblewrap import Bubblewrap
from meshnode.confinement import Confinement
from meshnode.errors import NoSandbox
from tests.documents.shell import blocks
from tests.meshnode.adapters.sandboxed import open_folder
from tests.meshnode.cli.commands import run

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text("utf-8")
BLOCKS = blocks(PAGE)
MEBIBYTE = 1024 * 1024


def test_the_command_says_that_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *BLOCKS["bash"].split()[1:]).status == 0


def test_each_setting_is_in_the_table_with_what_it_is_unless_said() -> None:
    told = dict(re.findall(r"^\| `(sandbox\w*)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    plain = AgentFile(kind="command")
    settings = {
        name: getattr(plain, name) for name in plain.__struct_fields__ if "sandbox" in name
    }
    words = {
        "sandbox_memory_bytes": f"{plain.sandbox_memory_bytes // 1024 // MEBIBYTE} GiB",
        "sandbox_disk_bytes": f"{plain.sandbox_disk_bytes // MEBIBYTE} MiB",
        "sandbox_reads": "none",
        "sandbox_processes": "64",
    }
    assert told == {name: words.get(name, "`false`") for name in settings}
    assert plain.sandbox_processes == 64
    assert plain.sandbox_reads == []
    assert f"{Confinement().cpu_s_max} s of processor time" in PAGE
    assert f"`{NoSandbox.code}`" in PAGE


def test_the_agent_is_hosted_as_it_stands_there(tmp_path: Path) -> None:
    with open_folder() as folder:
        (folder / "count.py").write_text("print(1)")
        path = tmp_path / "count.toml"
        path.write_text(BLOCKS["toml"].replace("/srv/count", str(folder)))
        agent = agent_of(read_agent_file(path), where="here")
        assert isinstance(agent, ConfinedCommandAgent)
        trio.run(agent.open)


@pytest.mark.parametrize("row", ["PATH", "HOME", "TMPDIR", "LANG"])
async def test_a_command_sees_the_variables_that_the_page_names(row: str) -> None:
    done = await Bubblewrap().run(["printenv", row], Confinement())
    assert done.returncode == 0
    assert f"`{row}`" in PAGE
