"""Who gets a gold before a task: a tenth always, more while little is known, and who must."""

from random import Random

from meshnode.domain.trust.book import Book
from meshnode.domain.trust.evidence import Evidence
from meshnode.domain.trust.golds import golds_due
from meshnode.domain.trust.rules import Kind

TASKS = 4_000


def book(**lists: tuple[Kind, int]) -> Book:
    """Return what is known of agents: so often, of that kind."""
    made = Book()
    for agent, (kind, count) in lists.items():
        for _ in range(count):
            made.learn(agent, Evidence(kind))
    return made


def share(known: Book, ranked: list[str], agent: str, *, alarmed: bool = False) -> float:
    rng = Random(7)
    due = [golds_due(known, ranked, rng, alarmed=alarmed) for _ in range(TASKS)]
    return sum(agent in names for names in due) / TASKS


def test_a_tenth_of_the_tasks_has_one_for_the_first_and_none_for_others() -> None:
    known = book(ada=("gold_passed", 20), bob=("gold_passed", 20), carl=("gold_passed", 20))
    ranked = ["ada", "bob", "carl"]
    assert abs(share(known, ranked, "ada") - 0.10) < 0.02
    assert share(known, ranked, "bob") == 0
    assert share(known, ranked, "carl") == 0
    assert abs(share(known, ranked, "ada", alarmed=True) - 0.30) < 0.03


def test_one_on_probation_has_more_and_one_that_was_taken_alone_too_often_has_one_now() -> None:
    known = book(ada=("gold_passed", 20), eve=("gold_passed", 1))
    assert abs(share(known, ["eve", "ada"], "eve") - 0.55) < 0.03
    for _ in range(3):
        known.learn("ada", Evidence("accepted_alone"))
    assert share(known, ["ada", "eve"], "ada") == 1


def test_where_nobody_is_strong_the_most_credible_is_introduced() -> None:
    known = book(ada=("gold_failed", 3), eve=("gold_passed", 1), bob=("served", 3))
    assert share(known, ["ada", "bob", "eve"], "eve") == 1
    strong = book(ada=("gold_passed", 20))
    assert share(strong, ["ada", "bob", "eve"], "eve") == 0
    assert golds_due(known, [], Random(1)) == []
