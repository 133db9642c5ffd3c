"""The engine of one loaded LLM: its servers, the threads that wait for them, what was tried on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from stillhouse.errors import GenerationError
from stillhouse.local import EngineWorker, Guide, JobQueue
from stillhouse.typing import ChatItem, HiddenState, OnPiece
from stillhouse_llamacpp.crowding import Crowding
from stillhouse_llamacpp.guides import SENTINEL, probe_of
from stillhouse_llamacpp.server import Route, Server, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cancelled", "Engine", "Renderer"]

T = TypeVar("T")

Cancelled = Callable[[], bool]
"""Says whether the one who asked has gone away."""

Call: TypeAlias = "Callable[[Cancelled, OnPiece | None], Any]"
"""A request, called in a thread of the engine; it gives the pieces of its text to the second argument."""

_REMEMBERED = 4096


class Engine:
    """A loaded model with its slots.

    Args:
        settings: how it is loaded.
        warn: takes a message for the user.

    Raises:
        ConfigurationError: the file is no model that the engine can load.
    """

    def __init__(self, settings: Settings, warn: Callable[[str], object]) -> None:
        self._settings = settings
        self._crowding = Crowding(warn)
        self._server = Server(settings)
        # A call blocks its thread until it is answered: the engine itself batches what is in its slots.
        self._worker: EngineWorker[None, Call, Any] = EngineWorker(
            lambda: None, _serve, "stillhouse-llamacpp", threads=settings.slots
        )
        self._lock = threading.Lock()
        self._hidden: Server | None = None
        self._honoured: dict[str, bool] = {}  # by grammar

    @property
    def seconds_waited(self) -> float:
        """Seconds that requests have waited for a slot."""
        return self._worker.seconds_waited

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._worker.is_busy

    async def run(
        self, function: Callable[[Cancelled, OnPiece | None], T], on_piece: OnPiece | None = None
    ) -> T:
        """What `function` returns, called in a thread when a slot is free; see `EngineWorker.run`."""
        result: T = await self._worker.run(function, on_piece=on_piece)
        return result

    def generate(
        self,
        route: Route,
        body: dict[str, Any],
        cancelled: Cancelled,
        on_answer: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Return the engine's answer to a request; see `Server.generate`."""
        answers = self._server.generate(route, body, cancelled, on_answer)
        self._crowding.look()
        return answers

    def require(self, guide: Guide) -> None:
        """Try a guide, once; a request with one that does not compile would be answered freely.

        Raises:
            UnsupportedError: the engine drops it.
        """
        honoured = self._honoured.get(guide.grammar)
        if honoured is None:
            honoured = self._try(guide)
            if len(self._honoured) >= _REMEMBERED:
                self._honoured.clear()
            self._honoured[guide.grammar] = honoured
        if not honoured:
            raise guide.refusal()

    def _try(self, guide: Guide) -> bool:
        """Whether the engine answers with the sentinel and, for JSON, goes on with something else.

        It gives a grammar up too when nothing can follow (bounds that leave no number). Nothing that
        the model writes freely begins with the sentinel; what it writes freely after it begins with
        the sentinel's first letter, by the bias, and no JSON does.
        """
        body = {
            "prompt": "A",
            "grammar": probe_of(guide),
            "max_tokens": len(SENTINEL) + 2,  # a token has one letter at least
            "temperature": 0,
            "logit_bias": {SENTINEL[0]: 100},
        }
        try:
            answer = self._server.generate("completion", body, lambda: False)
        except GenerationError as error:
            if error.kind != "invalid_request":
                raise
            return False
        text = answer[0]["choices"][0]["text"]
        rest = text.removeprefix(SENTINEL)
        return text.startswith(SENTINEL) and (guide.format != "json" or rest[:1] not in ("", SENTINEL[0]))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model comes with a chat template; the engine would make one up."""
        return self._server.has_chat_template

    def render(self, chat: Sequence[ChatItem], *, answer: bool, arguments: Mapping[str, Any]) -> str:
        """A chat as the prompt that the chat template makes of it.

        Args:
            chat: the chat.
            answer: whether the prompt ends where the assistant's answer begins.
            arguments: further variables of the template.
        """
        body = {
            "messages": list(chat),
            "add_generation_prompt": answer,
            "chat_template_kwargs": dict(arguments),
        }
        return str(self._server.post("/apply-template", body)["prompt"])

    def last_hidden_states(self, prompt: str) -> HiddenState:
        """The last hidden states of a prompt, `[num_tokens, hidden_size]`.

        A server that generates gives none, so that the first call loads the model a second time.
        """
        import numpy

        self._server.running()
        with self._lock:
            if self._hidden is None:
                self._hidden = Server(replace(self._settings, slots=1, hidden_states=True))
        rows = self._hidden.post("/embeddings", {"input": prompt})[0]["embedding"]
        return numpy.asarray(rows, dtype=numpy.float32)

    def close(self) -> None:
        """End the calls under way, and free the model."""
        self._worker.close()
        with self._lock:
            self._server.close()
            if self._hidden is not None:
                self._hidden.close()


class Renderer:
    """The engine as far as `Prompts` needs a tokenizer: it renders chats itself."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine
        self.chat_template = "{# the model's own #}" if engine is None or engine.has_chat_template else None

    def apply_chat_template(
        self,
        chat: Sequence[ChatItem],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
        chat_template: Any,
        **more: Any,
    ) -> str:
        """A chat as text. The template is the one that the engine was started with."""
        assert self._engine is not None
        return self._engine.render(chat, answer=add_generation_prompt, arguments=more)


def _serve(_: None, queue: JobQueue[Call, Any]) -> None:
    while _serve_one(queue):
        pass


def _serve_one(queue: JobQueue[Call, Any]) -> bool:
    """Do the next job; no local variable outlives it, for a job holds the engine."""
    jobs = queue.take(1)
    for job in jobs:
        try:
            job.finish(job.request(lambda: job.cancelled, job.on_piece))  # noqa: B023
        except BaseException as error:
            job.fail(error)
    return bool(jobs)
