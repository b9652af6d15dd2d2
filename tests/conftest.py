"""Rules that hold for every test."""

import os

import pytest

# A thread of OpenMP that waits for others turns in a loop, on a core that the worker beside needs; asleep it
# gives the same numbers. To be set before torch is imported; programs that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_skipped: list[str] = []


def pytest_runtest_logreport(report):
    """Remember what was skipped; a skip for want of a GPU is the only one that CI accepts."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "gpu" not in report.keywords:
            _skipped.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fail in CI if a test was skipped: CI installs every program that a test needs."""
    if os.environ.get("CI") and _skipped and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """Say which skipped tests made CI fail."""
    if os.environ.get("CI") and _skipped:
        terminalreporter.section("skipped, which CI does not accept")
        for line in _skipped:
            terminalreporter.line(line)
