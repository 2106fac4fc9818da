"""The report: one page that stands alone, says what the outcomes say, and obeys nobody."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from random import Random

import msgspec
import pytest
from typing_extensions import override

from simulations.outcome import Dot, Line, Outcome, Story, Window
from simulations.report import curves, network, page
from simulations.report.markup import Markup, joined, tag
from simulations.report.numbers import exact, moment, percent, span, ticks, time_ticks
from simulations.scenario import Scenario, Trouble

HOSTILE = "</style><script>alert('x')</script>\"&'\x1b[2J\u202e\ud800 javascript:1"
VOID = {"meta", "br"}
SCENARIO = Scenario(
    name="a <b>name</b>",
    story="Given one.\n\nWhen & where\nit goes on,\nthen <i>so</i>.",
    nodes=30,
    minutes=10,
    faults=(Trouble(at_s=60, kind="split", share=0.2, for_s=120),),
)


def outcome(seed: int, *troubles: str, nodes: int = 30) -> Outcome:
    rng = Random(seed)
    names = [f"n{i}" for i in range(nodes)]
    dots = [
        Dot(
            name=name,
            skills=rng.choice([(), ("upper",), ("echo", "sum")]),
            role=rng.choice(["honest", "honest", "liar"]),
            up=rng.random() > 0.2,
            brokered=rng.randrange(9),
            served=rng.randrange(50),
        )
        for name in names
    ]
    pairs = {(rng.choice(names), rng.choice(names)) for _ in range(nodes * 3)}
    return Outcome(
        scenario="s",
        seed=seed,
        nodes=nodes,
        digest=f"{seed:064x}",
        virtual_s=612.5,
        replay=f"meshnode simulate x --seed {seed}",
        troubles=troubles,
        figures={
            "jobs": 1200.0 + seed,
            "completed_share": 0.987654,
            "wrong_share": 0.0,
            "took_p50_s": 1.25,
            "took_p95_s": 12345.6789,
            "cost_mean_mc": 20.0,
        },
        windows=tuple(
            Window(at_s=10.0 * (i + 1), ended=20, completed=15 + seed, took_s=i, up=nodes)
            for i in range(60)
        ),
        dots=tuple(dots),
        lines=tuple(Line(broker=a, contractor=b, awards=5) for a, b in sorted(pairs)),
        stories=(
            Story(
                job="j1",
                by="n1",
                state="failed",
                why="nobody <could>",
                begun_s=61,
                took_s=2.5,
                cost_mc=0,
                events=("0.000 s planned", "1.000 s failed & gone"),
            ),
        ),
    )


class Reader(HTMLParser):
    """Sees that every element is closed where it should be, and collects what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def cells(self) -> Iterator[str]:
        return (text for name, text in self.texts if name == "td")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def of(*outcomes: Outcome, scenario: Scenario = SCENARIO) -> Reader:
    return read(page(scenario, outcomes, made_by="meshnode 1"))


CASES = {
    "one": [outcome(1)],
    "one that failed": [outcome(1, "it is wrong")],
    "several": [outcome(seed) for seed in range(3)],
    "many": [outcome(seed, *(["bad"] if seed == 4 else [])) for seed in range(25)],
    "a large one": [outcome(2, nodes=300)],
    "nothing was played": [
        Outcome(
            scenario="s",
            seed=1,
            nodes=1,
            digest="",
            virtual_s=0,
            replay="r",
            troubles=("dead",),
        )
    ],
    "nobody": [],
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_html_that_loads_and_runs_nothing(name: str) -> None:
    text = page(SCENARIO, CASES[name], made_by="meshnode 1")
    reader = read(text)
    assert not reader.names & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not [one for one, _ in reader.attributes if one.startswith("on")]
    assert not {one for one, _ in reader.attributes} & {"src", "href", "srcset", "action"}
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    (policy,) = [value for _, value in reader.attributes if "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    text.encode()


def test_what_a_scenario_and_its_nodes_say_is_text() -> None:
    said = msgspec.structs.replace(
        outcome(1, HOSTILE),
        replay=HOSTILE,
        scenario=HOSTILE,
        dots=(Dot(name=HOSTILE, skills=(HOSTILE,), role=HOSTILE),),
        lines=(),
        figures={**outcome(1).figures, HOSTILE: 1.0},
        stories=(
            Story(
                job=HOSTILE,
                by=HOSTILE,
                state=HOSTILE,
                why=HOSTILE,
                begun_s=0,
                took_s=0,
                cost_mc=0,
                events=(HOSTILE,),
            ),
        ),
    )
    scenario = msgspec.structs.replace(
        SCENARIO,
        name=HOSTILE,
        story=HOSTILE,
        faults=(Trouble(at_s=1, kind="crash", who=(HOSTILE,)),),
    )
    text = page(scenario, [said], made_by=HOSTILE)
    reader = read(text)
    assert "script" not in reader.names
    assert text.count("<style") == 1
    assert not set(text) & {"\x1b", "\u202e", "\ud800"}
    shown = "".join(data for _, data in reader.texts)
    assert shown.count("<script>alert('x')</script>") >= 12, "they are told, as text"


def test_the_figures_are_the_outcomes() -> None:
    one = outcome(1)
    cells = list(of(one).cells())
    for name, value in one.figures.items():
        shown = cells[cells.index(name) + 1]
        assert float(shown.replace(",", "")) == value


def test_over_seeds_the_figures_are_their_spread() -> None:
    cells = list(of(*CASES["several"]).cells())
    at = cells.index("jobs")
    assert cells[at + 1 : at + 5] == ["1,200", "1,201", "1,202", "1,202"]


def test_what_failed_is_told_with_its_replay() -> None:
    reader = of(outcome(3), outcome(4, "it is wrong", "and late"))
    said = [text for name, text in reader.texts if name == "li"]
    assert {"it is wrong", "and late"} <= set(said)
    commands = [text for name, text in reader.texts if name == "pre"]
    assert commands[0] == "meshnode simulate x --seed 4"
    assert "1 of 2 failed" in {text for _, text in reader.texts}
    titles = [text for name, text in reader.texts if name == "h2"]
    assert "The network, seed 4" in titles, "the one that failed is drawn"


def test_the_story_and_the_troubles_of_the_scenario_are_told() -> None:
    said = [text for name, text in of(outcome(1)).texts if name == "p"]
    assert "Given one." in said
    assert "When & where it goes on,\nthen <i>so</i>." in said
    assert any("split of 20 % of the nodes for 2 min at 1:00" in one for one in said)


def test_journals_are_there_to_unfold() -> None:
    reader = of(outcome(1))
    assert ("pre", "0.000 s planned\n1.000 s failed & gone") in reader.texts
    assert ("div", "nobody <could>") in reader.texts


def test_everything_drawn_is_within_the_drawing() -> None:
    for name in ("many", "a large one", "one"):
        text = page(SCENARIO, CASES[name], made_by="m")
        for svg in re.findall(r"<svg .*?</svg>", text):
            box = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg)
            assert box is not None
            xs = re.findall(r' (?:x|cx|x1|x2)="(-?[\d.]+)"', svg)
            ys = re.findall(r' (?:y|cy|y1|y2)="(-?[\d.]+)"', svg)
            for points in re.findall(r'points="([^"]*)"', svg):
                xs += [one.split(",")[0] for one in points.split()]
                ys += [one.split(",")[1] for one in points.split()]
            assert all(0 <= float(x) <= int(box[1]) for x in xs)
            assert all(0 <= float(y) <= int(box[2]) for y in ys)


def test_all_nodes_are_drawn_and_the_busiest_lines() -> None:
    text = network.drawing(outcome(2, nodes=300))
    assert text.count('class="node') == 300
    many = msgspec.structs.replace(
        outcome(2, nodes=300),
        lines=tuple(
            Line(broker=f"n{i}", contractor=f"n{j}", awards=1)
            for i in range(40)
            for j in range(40, 70)
        ),
    )
    assert network.drawing(many).count('class="edge"') == network.LINES_MAX
    assert "Of 1,200 lines the busiest 800 are drawn." in network.caption(many)


def test_the_same_outcomes_are_the_same_page() -> None:
    again = [outcome(seed, *(["bad"] if seed == 4 else [])) for seed in range(25)]
    first, second = (page(SCENARIO, one, made_by="m") for one in (CASES["many"], again))
    assert first == second


# --- curves ------------------------------------------------------------------------------


def windows(*ended: int, completed: int = 1) -> list[Window]:
    return [
        Window(at_s=10.0 * (i + 1), ended=one, completed=min(one, completed), took_s=i)
        for i, one in enumerate(ended)
    ]


def test_a_curve_is_the_median_of_the_seeds_with_their_band() -> None:
    rows = [windows(2), windows(4), windows(10)]
    (point,) = curves.curve(rows, curves.completed_share)
    assert (point.low, point.mid, point.high) == (0.1, 0.25, 0.5)
    assert (point.from_s, point.at_s, point.until_s) == (0, 5, 10)
    many = [[Window(at_s=1, up=i)] for i in range(100)]
    (point,) = curves.curve(many, curves.up)
    assert (point.low, point.mid, point.high) == (5, 50, 95)


def test_where_nothing_ended_there_is_no_value() -> None:
    points = curves.curve([windows(1, 0, 1)], curves.completed_share)
    assert [point.mid for point in points] == [1.0, None, 1.0]
    text = page(
        SCENARIO,
        [msgspec.structs.replace(outcome(1), windows=tuple(windows(9, 9, 0, 9, 9)))],
        made_by="m",
    )
    share = text.partition("Jobs that completed")[2].partition("</svg>")[0]
    assert share.count("<polyline") == 2, "two stretches, and no line between them"
    assert "nothing ended" in share


def test_few_jobs_are_told_in_longer_parts() -> None:
    seldom = [msgspec.structs.replace(outcome(1), windows=tuple(windows(*[1] * 60)))]
    (row,) = curves.rows_of(seldom)
    assert len(row) == 15
    assert sum(one.ended for one in row) == 60
    assert row[0].took_s == pytest.approx(1.5), "weighed by jobs"
    (row,) = curves.rows_of([outcome(1)])
    assert len(row) == 60


# --- numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (exact(1200), "1,200"),
        (exact(0.1234567), "0.123457"),
        (exact(-0.0000001), "0"),
        (percent(1), "100 %"),
        (percent(0.99999), "> 99.9 %"),
        (percent(0.00001), "< 0.1 %"),
        (percent(0.985), "98.5 %"),
        (span(0.123), "0.12 s"),
        (span(90), "1.5 min"),
        (span(7200), "2 h"),
        (moment(61), "1:01"),
        (moment(3661), "1:01:01"),
        (ticks(0), [0, 1]),
        (ticks(1), [0, 0.25, 0.5, 0.75, 1]),
        (ticks(7), [0, 2, 4, 6, 8]),
        (ticks(0.03), [0, 0.01, 0.02, 0.03]),
        ([name for _, name in time_ticks(60)][1:4], ["0:10", "0:20", "0:30"]),
        ([name for _, name in time_ticks(3600)], ["0", "10", "20", "30", "40", "50", "60"]),
        ([name for _, name in time_ticks(86400)][-1], "24 h"),
    ],
)
def test_numbers_are_read_by_people(said: object, shown: object) -> None:
    assert said == shown


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = tag("b", "<", class_='a"b', data_x=1.0, left=None)
    assert inner == '<b class="a&quot;b" data-x="1">&lt;</b>'
    assert joined("&", inner, None, ["<", inner]) == f"&amp;{inner}&lt;{inner}"
    assert isinstance(joined("x"), Markup)
