"""The pytest plugin of the kit: the table at the end of a run, and `--conformance-json`.

pytest loads it in every run where stillhouse is installed, so it imports nothing and does nothing until
a test of the kit is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_PROPERTY = "conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stillhouse")
    group.addoption(
        "--conformance-table",
        action="store_true",
        help="print every rule of Stillhouse's contract, and not only those that something is to be said of",
    )
    group.addoption(
        "--conformance-until",
        metavar="VERSION",
        help="hold backends to the rules that this version of Stillhouse has, and not to newer ones",
    )
    group.addoption(
        "--conformance-json",
        metavar="PATH",
        help="write which rules of Stillhouse's contract each backend keeps, as JSON",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of rules: only the report of a test reaches the process that writes the table."""
    until = config.getoption("--conformance-until")
    for item in items:
        rule: Any = getattr(getattr(item, "function", None), "conformance_rule", None)
        if rule is not None:
            item.user_properties.append((_PROPERTY, rule.id))
            if until and _numbers(rule.since) > _numbers(until):
                item.add_marker(_skip(f"new in {rule.since}"))


def _skip(reason: str) -> Any:
    import pytest

    return pytest.mark.skip(reason=reason)


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version; a text that is none has none."""
    return [int(part) for part in version.split(".") if part.isdecimal()][:2]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.user_properties:
        for name, value in report.user_properties:
            if name == _PROPERTY:
                _reporter().add(report, str(value))


def pytest_warning_recorded(warning_message: Any, nodeid: str) -> None:
    if warning_message.category.__name__ == "ConformanceWarning":
        _reporter().warned(nodeid, str(warning_message.message))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption("--conformance-json")
    if _started or path:
        reporter = _reporter()
        reporter.show(terminalreporter, whole=config.getoption("--conformance-table"))
        if path:
            reporter.write(path)
    _started.clear()


# One for each run in this process, created when there is something to report.
_started: list[Any] = []


def _reporter() -> Any:
    if not _started:
        from stillhouse.testing.report import Reporter

        _started.append(Reporter())
    return _started[0]
