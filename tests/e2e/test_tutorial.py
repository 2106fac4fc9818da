"""docs/tutorial.md is run, block after block, in an empty folder."""

import re
import socket
from pathlib import Path

import pytest

from tests.documents.shell import run_commands

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def script() -> str:
    """Return the page's shell blocks; the graph and the test become their files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = ["set -euo pipefail", 'trap "kill 0" EXIT']
    for language, text in BLOCKS:
        if language == "toml":
            lines.append(f"cat > colours.toml <<'END'\n{text}END")
        elif language == "python":
            lines.append(f"cat > test_fifty.py <<'END'\n{text}END")
        else:
            lines.append(text.replace("8099", str(port)))
    # The page's last line ends the server by its number in an interactive shell.
    return "\n".join(lines).replace("kill %1", "kill $!")


@pytest.mark.timeout(180)
def test_the_tutorial_runs(tmp_path: Path) -> None:
    done = run_commands(script(), tmp_path, homes=["desk", "maker"], strictly=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert (tmp_path / "answer" / "outputs.json").is_file(), said
    assert "signatures" in done.stdout, said
    assert "is offered no longer" in done.stdout, said
    assert "1 passed" in done.stdout, said
