"""What holds for every test: no flaky timers, and in CI nothing skips.

A test skips where an optional program of the machine is missing.  In CI (``CI`` is set)
everything must be there, so a skip there is a failure: a suite that quietly stops testing
something is worse than a red one.
"""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

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
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skipped in CI."""
    report = yield
    # An expected failure is reported as a skip with this attribute.
    if report.skipped and "CI" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skipped in CI."""
    report = yield
    if report.skipped and "CI" in os.environ:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI doesn't allow: {report.longrepr}"
    return report
