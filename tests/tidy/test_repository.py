"""House rules for what is tracked: no traces of a machine, one sentence a line, changelog.

As in ``test_modules``, each rule is run over the repository and over planted violations.
"""

import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Folders that only exist on somebody's machine, and where packages are downloaded from.
MACHINE = re.compile(
    r"(?<![\w.*-])/(?:work|root|home|Users|opt/[a-z-]+)/[\w.-]"
    r"|\bpypi\.org|\bpythonhosted\.org|\bregistry\.npmjs\.org|\bhuggingface\.co\b"
    r"|\bproxy\.golang\.org|--(?:extra-)?index-url|--find[-]links"
)
#: End of one sentence and beginning of the next on one line.
TWO_SENTENCES = re.compile(r"[a-z0-9`)\"”*][.!?][)\"”*]?\s+[\"“(*]?[A-Z]")
NUMBER_OF_ITEM = re.compile(r"^\s*\d+\. ")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|vs|cf|etc|No|Fig)\.")
INLINE_CODE = re.compile(r"`[^`]*`")
#: `<issue>.<type>.md`, or `+<words>.<type>.md` where there is no issue.
FRAGMENT = re.compile(r"(?:[0-9]+|\+[a-z0-9-]+)\.([a-z]+)(?:\.[0-9]+)?\.md")

Rule = Callable[[str, str], Iterator[str]]


def tracked() -> list[str]:
    """Paths of all tracked files that are there."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [path for path in listing.split("\0") if path and (ROOT / path).is_file()]


def names_no_machine(path: str, text: str) -> Iterator[str]:
    """No folder of somebody's machine, no registry, no download address."""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := MACHINE.search(line):
            yield f"{path}:{number}: {match.group()}"


def gives_each_sentence_a_line(path: str, text: str) -> Iterator[str]:
    """Markdown has one sentence a line, so that a change shows what changed."""
    if not path.endswith(".md"):
        return
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith("|"):  # a table's row is one line
            prose = NUMBER_OF_ITEM.sub("", ABBREVIATION.sub("", INLINE_CODE.sub("`", line)))
            if TWO_SENTENCES.search(prose):
                yield f"{path}:{number}: two sentences on a line"


def is_a_changelog_fragment(path: str, text: str) -> Iterator[str]:
    """A fragment's name has a known type, and it says something in sentences."""
    if not path.startswith(".changes/"):
        return
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    types = {kind["directory"] for kind in settings["tool"]["towncrier"]["type"]}
    match = FRAGMENT.fullmatch(path.removeprefix(".changes/"))
    if match is None or match[1] not in types:
        yield f"{path}: not <issue>.<type>.md with a type of {sorted(types)}"
    if not text.strip().endswith((".", "```")):
        yield f"{path}: not a sentence"


RULES: tuple[Rule, ...] = (
    names_no_machine,
    gives_each_sentence_a_line,
    is_a_changelog_fragment,
)


def test_tracked_files_keep_the_house_rules() -> None:
    complaints = []
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text, so not prose
        complaints += [complaint for rule in RULES for complaint in rule(path, text)]
    assert not complaints, "\n".join(complaints)


# Written in two parts, or this file would be a violation itself.
PLANTED: list[tuple[Rule, str, str]] = [
    (names_no_machine, "README.md", "cd /" + "work/main"),
    (names_no_machine, "a.py", 'HOME = "/' + 'root/x"'),
    (names_no_machine, "a.toml", "url = 'https://pypi" + ".org/simple'"),
    (names_no_machine, "setup", "pip install --index" + "-url x"),
    (gives_each_sentence_a_line, "README.md", "It runs. Then it stops."),
    (gives_each_sentence_a_line, "README.md", "It runs `x`. Then it stops."),
    (gives_each_sentence_a_line, "README.md", "(It runs.) Then it stops."),
    (gives_each_sentence_a_line, "README.md", "```\na\n```\nIt runs! Then it stops."),
    (is_a_changelog_fragment, ".changes/2.unknown.md", "It runs.\n"),
    (is_a_changelog_fragment, ".changes/notes.md", "It runs.\n"),
    (is_a_changelog_fragment, ".changes/2.added.md", "\n"),
]
ALLOWED: list[tuple[Rule, str, str]] = [
    (names_no_machine, "a.py", "framework/x, a/home/b, /tmp/x"),
    (gives_each_sentence_a_line, "README.md", "It runs, e.g. Debian's.\nThen it stops."),
    (gives_each_sentence_a_line, "README.md", "```\nIt runs. Then it stops.\n```"),
    (gives_each_sentence_a_line, "README.md", "| It runs. Then it stops. |"),
    (gives_each_sentence_a_line, "README.md", "Version 0.8.1 is pinned."),
    (is_a_changelog_fragment, ".changes/2.added.md", "It runs.\n"),
    (is_a_changelog_fragment, ".changes/+setup.fixed.2.md", "It runs.\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_rule_finds_a_planted_violation(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(path, text))) == 1


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_a_rule_lets_the_allowed_pass(rule: Rule, path: str, text: str) -> None:
    assert list(rule(path, text)) == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)
