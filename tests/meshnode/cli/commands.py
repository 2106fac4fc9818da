"""Runs commands in this process, as a user would see them."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from meshnode.cli import main


@dataclass
class Said:
    """What a command left."""

    status: int
    out: str
    err: str

    def line(self) -> Any:
        """The one line of JSON that a program reads."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Said:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return Said(caught.value.code, said.out, said.err)
