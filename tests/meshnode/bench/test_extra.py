"""The extra environment: who can't have it is told why, in one line, and what to do."""

from pathlib import Path

import pytest

from meshnode.bench import extra
from meshnode.bench.extra import PeersMissing, extra_environment


def test_packages_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("no-such-package-of-meshnode==1\n")
    monkeypatch.setattr(extra, "REQUIREMENTS", wanted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    told: list[str] = []
    with (
        pytest.raises(PeersMissing, match="no-such-package-of-meshnode") as caught,
        extra_environment(lambda what, _=None: told.append(what)),
    ):
        pass
    assert "--no-peers" in caught.value.line()
    assert "\n" not in caught.value.line()
    assert str(tmp_path / "cache") in told[0], "the user is told where it goes"


def test_a_cache_folder_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(PeersMissing, match="can't be used"), extra_environment(lambda *_: None):
        pass
