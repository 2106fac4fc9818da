"""What holds for every test: no flaky timers, and in CI nothing skips.

No test of ours skips (tests/tidy holds that).  Whatever else does, a plugin or a module, is a
failure in CI (``CI`` is set): a suite that quietly stops testing something is worse than a
red one.
"""

import os
import signal
import warnings
from collections.abc import Generator
from inspect import isgenerator

import httpcore  # noqa: F401 - httpx loads it late; within a run in a run it would be another
import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: tests of Ctrl-C would test nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Runs suites of users' tests within a test (tests/simulations/test_pytest_plugin.py).
pytest_plugins = ("pytester",)

#: The longest a test of whole processes may take, unless it says otherwise.
E2E_TIMEOUT_S = 240

# Examples may take long on a machine that others use too, so no deadline; in CI the
# examples are the same in every run, elsewhere they explore.
settings.register_profile("here", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of whole processes more time."""
    for item in items:
        if "e2e" in item.path.parts and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(E2E_TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skipped in CI; end a Trio run that a time limit shot down."""
    if call.excinfo is not None:
        _end_run(call.excinfo.value)
    report = yield
    # An expected failure is reported as a skip with this attribute.
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report


def _end_run(error: BaseException) -> None:
    """Close the loop of a run that ended in its wait for events.

    Trio counts it as running until its generator is collected, whenever that is, and
    refuses to begin another: one hang would fail the tests after it.
    """
    trace = error.__traceback__
    while trace is not None:
        loop = trace.tb_frame.f_locals.get("gen")
        if trace.tb_frame.f_globals.get("__name__") == "trio._core._run" and isgenerator(loop):
            with warnings.catch_warnings(action="ignore"):  # that it was abandoned
                loop.close()
        trace = trace.tb_next


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skipped in CI."""
    report = yield
    if report.skipped and "CI" in os.environ:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report
