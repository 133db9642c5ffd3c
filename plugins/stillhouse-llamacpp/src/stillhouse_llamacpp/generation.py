"""One generation of an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stillhouse import GenerateOutput
from stillhouse.local import Guide
from stillhouse.typing import OnPiece, StandardInput
from stillhouse_llamacpp.answers import read_answer, text_of
from stillhouse_llamacpp.engine import Cancelled, Engine
from stillhouse_llamacpp.server import Route

__all__ = ["generate_one"]


def generate_one(
    engine: Engine,
    route: Route,
    body: dict[str, Any],
    cancelled: Cancelled,
    on_piece: OnPiece | None,
    *,
    guide: Guide | None,
    prompt: StandardInput | str | Callable[[], str],
    candidates: int | None,
) -> GenerateOutput:
    """An output with one generation; it blocks.

    Args:
        engine: the loaded model.
        route: the engine's route for the prompt.
        body: the request, without prompt and grammar.
        cancelled: ends the request when it says so.
        on_piece: takes the text as it comes; `None` where nobody waits for it.
        guide: the form that the answer must have.
        prompt: a chat, a text, or what makes one when it is called.
        candidates: see `read_answer`.

    Raises:
        GenerationError: the engine refused it or failed, or the answer lacks the form.
        UnsupportedError: the engine cannot honour the form.
    """
    content = prompt() if callable(prompt) else prompt
    body = {**body, ("messages" if route == "chat" else "prompt"): content}
    if guide is not None:
        engine.require(guide)
        body["grammar"] = guide.grammar
    on_answer = None if on_piece is None else lambda answer: on_piece(text_of(answer))
    output = read_answer(engine.generate(route, body, cancelled, on_answer), candidates)
    if guide is not None:
        guide.check(output["generations"][0] or "", output["finish_reasons"][0])
    return output
