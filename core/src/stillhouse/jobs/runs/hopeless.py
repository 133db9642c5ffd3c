"""`FailureWatch`: stops a run that is hopeless, or in which too many rows fail.

It is called only for failed rows: other rows cost nothing here. Once it `holds`, no further row is started.
The rows in flight finish, and then `judge` decides whether the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse._execution.stopping import has_stopped
from stillhouse._wording import number_of
from stillhouse.errors import GenerationError, StillhouseError, UnsupportedError
from stillhouse.jobs.runs.reasons import Failure, Failures, retried_kinds
from stillhouse.jobs.runs.said import in_a_line, masked

__all__ = ["HOPELESS_ROWS", "FailureWatch", "FailuresError"]

HOPELESS_ROWS = 20
"""Minimum number of rows with the same failure, and without any generated row, for a hopeless run."""

# What the content of a row causes: the next one may well be done.
_OF_ROWS = frozenset({"invalid_input", "context_length", "content_filter", "schema", "truncated"})

# No content causes these, whatever their messages are; they may pass with time.
_PASSING = frozenset({"rate_limit", "timeout", "connection", "server"})


class FailuresError(StillhouseError):
    """The run stopped because rows failed. All of them are in its state.

    Attributes:
        kinds: for a hopeless run, the error kinds of the rows that the same command generates again; empty
            if the run stopped at `max_failures`.
        failures: number of rows that failed in this process.
    """

    def __init__(
        self, message: str, *, kinds: tuple[str, ...] = (), failures: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.kinds = kinds
        self.failures = failures


class FailureWatch:
    """Watches the failures of one process of a run.

    Args:
        limit: number of rows that may fail before the run stops; 0 for any number, and `None` to stop only if
            the run is hopeless: if at least `HOPELESS_ROWS` rows failed, all with the same error that no row
            causes, and none was generated.

    Attributes:
        holds: whether no further row may be started before `judge` was called.
        on_limit: called when the limit is reached: rows that were not sent need not be sent.
        failures: why rows failed.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._is_off = limit == 0
        self.holds = False
        self.on_limit: Callable[[], object] = lambda: None
        self.failures = Failures()
        # The failures that no row causes.
        self._alike = 0
        self._reason: Any = None
        self._differ = False
        self._kinds: set[str] = set()
        self._hint = ""

    def see(self, error: GenerationError) -> None:
        """Record the error of a row."""
        if has_stopped(error):  # it is no failure: the run sends nothing more
            return
        self.failures.add(self.failures.rows, error.kind, error.message)
        if self._is_off:
            return
        if not _is_of_row(error):
            reason: Any = (
                "passing" if error.kind in _PASSING else (error.kind, error.place or masked(error.message))
            )
            self._differ = self._differ or (self._alike > 0 and reason != self._reason)
            self._reason = reason
            self._alike += 1
            self._kinds.add(error.kind)
            self._hint = error.hint
        if self._limit is None:
            self.holds = self._seems_hopeless
        elif self.failures.rows >= self._limit:
            self.holds = True
            self.on_limit()

    @property
    def _seems_hopeless(self) -> bool:
        return self._alike >= HOPELESS_ROWS and not self._differ

    def judge(self, generated: int, *, is_kept: bool = True) -> FailuresError | None:
        """Return why the run stops, or `None` if it continues; further rows may be started then.

        Args:
            generated: number of rows that the backend generated, and not a hook such as a cache.
            is_kept: whether the run has a state, so that the same command resumes it.
        """
        if not self.holds:
            return None
        is_hopeless = self._seems_hopeless and generated == 0
        if self._limit is None and not is_hopeless:
            self.holds, self._is_off = False, True
            return None
        commonest = self.failures.most_common(1)[0]
        return self._hopeless(commonest, is_kept) if is_hopeless else self._too_many(commonest, is_kept)

    def _hopeless(self, commonest: Failure, is_kept: bool) -> FailuresError:
        ways = [in_a_line(self._hint)] if self._hint else []
        if is_kept:
            ways.append("run the same command again when that is mended: it generates the failed rows again")
        ways.append("--max-failures 0 continues whatever fails")
        return FailuresError(
            f"the run is hopeless: all {self._alike:,} rows that were tried failed, in a way that no row "
            f"causes: {commonest.kind}: {commonest.message}",
            kinds=tuple(sorted(self._kinds)),
            failures=self.failures.rows,
            hint="; ".join(ways),
        )

    def _too_many(self, commonest: Failure, is_kept: bool) -> FailuresError:
        rows, kinds = self.failures.rows, retried_kinds(self.failures.kinds)
        ways = ["mend what failed, or give a higher --max-failures"]
        if is_kept:
            ways.append("the same command resumes with the other rows")
        if is_kept and kinds:
            ways.append(f"--retry {','.join(kinds)} generates the failed ones again")
        often = "" if commonest.rows == rows else f"{commonest.rows:,} of them: "
        return FailuresError(
            f"{number_of(rows, 'row')} failed, and --max-failures is {self._limit:,}: {often}"
            f"{commonest.kind}: {commonest.message}",
            failures=rows,
            hint="; ".join(ways),
        )


def _is_of_row(error: GenerationError) -> bool:
    """Whether the content of a row causes its error, as for a row that needs a missing capability."""
    return error.kind in _OF_ROWS or isinstance(error.__cause__, UnsupportedError)
