"""Says loudly when the page could not be tested in a browser."""

import pytest

from tests.view.browser import why_not


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = why_not()
    if reason is not None:
        terminalreporter.section("NOT TESTED: the page in a browser", sep="!", red=True)
        terminalreporter.line(reason)
