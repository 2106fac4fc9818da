"""What a broker has out where it was refused more."""

from meshnode.domain.windows import Windows


def test_a_window_is_what_was_out_beside_the_refused_and_grows_by_a_quarter_a_receipt() -> None:
    windows = Windows()
    assert windows.units_max("a") == 0
    for out in (9, 8, 7):  # three refused of ten
        windows.tighten("a", out)
    assert windows.units_max("a") == 7
    windows.tighten("a", 12)
    assert windows.units_max("a") == 7, "what was more before says nothing"
    assert [windows.widen("a") for _ in range(4)] == [True] * 4
    assert windows.units_max("a") == 8
    assert not windows.widen("b")
    assert windows.units_max("b") == 0


def test_one_unit_may_always_be_asked_for_and_a_wide_window_is_none() -> None:
    windows = Windows()
    windows.tighten("a", 0)
    assert windows.units_max("a") == 1
    windows.tighten("b", 600)
    windows.widen("b")
    assert windows.units_max("b") == 0
