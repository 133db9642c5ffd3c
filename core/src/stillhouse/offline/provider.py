"""`Provider`: what the engine asks of a backend, with `Job` and `JobResult`, its provider-neutral answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import quote

from stillhouse.offline.chunks import Chunk, ChunkState
from stillhouse.offline.failures import Failure, UnclearError
from stillhouse.outputs import count_of
from stillhouse.protocols import InputWithArguments
from stillhouse.typing import FormattedInput, GenerateOutput

__all__ = [
    "INPUTS_AT_ONCE",
    "BatchLimits",
    "Framing",
    "InputsOf",
    "Job",
    "JobResult",
    "Provider",
    "UndecidedError",
    "clean_words",
    "path_segment",
]

T = TypeVar("T")

InputsOf = Callable[[Sequence[int]], Mapping[int, FormattedInput | InputWithArguments]]
"""The inputs of rows, by their ids; one that cannot be had is left out."""

INPUTS_AT_ONCE = 500
"""How many rows an `InputsOf` is called with: a bound on the inputs in memory."""

MAX_WORDS = 500
"""How many characters of a provider's words are kept."""

MAX_STATE = 2**20
"""How many characters of a state's name are looked at; a backend gives shorter ones."""

MAX_ID = 1000
"""How many characters the id of a job or a file may have."""


def clean_words(value: object, limit: int = MAX_WORDS) -> str:
    """Return what a provider says as one line for people to read, without control characters.

    Args:
        value: what it says; what is no text or number says nothing.
        limit: how many characters of it are kept.
    """
    if not isinstance(value, (str, int, float)):
        return ""
    text = str(value)[:limit]
    return " ".join("".join(item if item.isprintable() else " " for item in text).split())


def path_segment(id: str) -> str:
    """Return a provider's id as one segment of a path, whatever it holds: it never leads to another path."""
    id = str(id)  # some providers count theirs
    quoted = quote(id, safe=":@")
    if quoted != id or set(id) <= {"."}:
        return quoted.replace(".", "%2E")
    return id


class UndecidedError(Exception):
    """A job may be the requested one, and only its results will show it."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of one job.

    Attributes:
        requests: maximum number of requests.
        bytes: maximum size of all requests together, as they are sent.
    """

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Framing:
    """The text around the requests: one line each, or items of a list in a body."""

    head: bytes = b""
    separator: bytes = b"\n"
    tail: bytes = b"\n"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the provider. Its texts and counts come from the provider, and are sanitised here.

    Attributes:
        id: the provider's id.
        state: `created` while it is running, else how it ended: `finished`, `expired`, `failed` or
            `cancelled`.
        provider_state: the provider's own word for it.
        counts: the provider's numbers of `completed`, `failed`, … requests, if it reports them.
        result_files: the files of results, including those of failed requests.
        failure: why the job as a whole failed; `None` if it did not.
    """

    id: str
    state: ChunkState
    provider_state: str
    counts: Mapping[str, int] = field(default_factory=dict)
    result_files: tuple[str, ...] = ()
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if not _is_id(self.id):
            raise UnclearError(
                "the provider's id of a job is invalid",
                kind="server",
                hint="check that base_url is the address of an API with offline batches",
            )
        failure = self.failure
        if failure is not None:
            failure = replace(failure, message=clean_words(failure.message))
        counts = self.counts if isinstance(self.counts, Mapping) else {}
        known = {clean_words(name): count_of(count) for name, count in counts.items()}
        files = self.result_files if isinstance(self.result_files, (list, tuple)) else ()
        for name, value in (
            ("provider_state", clean_words(self.provider_state, MAX_STATE)),
            ("counts", {name: count for name, count in known.items() if count is not None}),
            ("result_files", tuple(file for file in files if _is_id(file))),
            ("failure", failure),
        ):
            object.__setattr__(self, name, value)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable()


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of one request.

    Attributes:
        answer: the answer, as the API gives it online; `None` if the request failed.
        failure: why the request failed; with `retried` it is sent again. Without answer and failure, the
            request was cancelled.
    """

    answer: Any = None
    failure: Failure | None = None


class Provider(Protocol):
    """A loaded backend, as the engine of offline batches sees it.

    `stillhouse.http.batches.BatchHTTPLLM` is one, and documents each member; the engine itself knows
    neither HTTP nor an LLM.
    """

    # The run: its arguments, its inputs, and where coroutines run

    def require_loaded(self) -> None:
        """Raise a `ConfigurationError` unless the backend is loaded."""

    def get_generation_kwargs(self) -> dict[str, Any]:
        """Return the generation parameters in force when a run gives none."""

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return generation parameters with their values in the declared types."""

    def check_batch_input(self, input: FormattedInput) -> None:
        """Reject an input that cannot go into an offline batch."""

    def run_on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one of the coroutines below and wait for it."""

    # What a job may hold

    @property
    def batch_limits(self) -> BatchLimits:
        """What one job may hold."""

    @property
    def batch_framing(self) -> Framing:
        """What stands around the requests of a job."""

    @property
    def makes_several(self) -> bool:
        """Whether one request can ask for several generations."""

    # How a request and its answer look

    def batch_request(
        self, input: FormattedInput, num_generations: int, arguments: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Return the path and the body of a request."""

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request as it stands in the file."""

    def batch_result(self, line: dict[str, Any]) -> JobResult:
        """Return what a line of the results says."""

    def batch_output(
        self, answer: Any, path: str, input: FormattedInput | None, num_generations: int
    ) -> GenerateOutput:
        """Return the output of an answer, validated against its form."""

    # How the provider is asked

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        """Upload the file of a chunk, and return the provider's id of it."""

    async def create_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> Job:
        """Make the job of a chunk, at most once; an `UnclearError` means that there may be one."""

    async def find_batch(self, chunk: Chunk, known: set[str]) -> Job | None:
        """Find the job that was made of a chunk in the provider's own list."""

    async def batch_job(self, chunk: Chunk) -> Job:
        """Fetch the job of a chunk, as it stands."""

    async def save_results(self, chunk: Chunk, place: str, file: IO[bytes]) -> None:
        """Save one of `Job.result_files`."""

    async def cancel_batch(self, chunk: Chunk) -> None:
        """Cancel the job of a chunk."""
