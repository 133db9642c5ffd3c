"""The growing text of an answer, and the stop texts that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Detokenizer", "StopTexts"]


class Detokenizer:
    """The text of one generation, token by token.

    A character that takes several tokens comes with the last of them; special tokens have no text.

    Args:
        tokenizer: a tokenizer of the library `transformers`, preferably a fast one.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._step = _window(tokenizer) if backend is None else _stream(backend)

    def add(self, token: int) -> str:
        """Return the text that a token adds; it may be empty."""
        return self._step(token)


def _stream(backend: Any) -> Callable[[int], str]:
    from importlib import import_module

    stream = import_module("tokenizers.decoders").DecodeStream(skip_special_tokens=True)

    def step(token: int) -> str:
        return stream.step(backend, token) or ""

    return step


def _window(tokenizer: Any) -> Callable[[int], str]:
    """The text that a token adds to those from a recent start on: a token alone may lose its space."""
    tokens: list[int] = []
    done = 0  # tokens whose text was given
    start = 0  # where the window begins, at a token whose text is complete

    def step(token: int) -> str:
        nonlocal done, start
        tokens.append(token)
        before = tokenizer.decode(tokens[start:done], skip_special_tokens=True)
        text = tokenizer.decode(tokens[start:], skip_special_tokens=True)
        if len(text) <= len(before) or text.endswith("\ufffd"):
            return ""
        start, done = done, len(tokens)
        return str(text[len(before) :])

    return step


class StopTexts:
    """The texts that end an answer and are left out of it.

    Args:
        stops: a text, several texts, or none. Empty texts are ignored.
    """

    def __init__(self, stops: str | Sequence[str] | None) -> None:
        given = [stops] if isinstance(stops, str) else list(stops or ())
        self.stops = tuple(stop for stop in given if stop)
        self._longest = max(map(len, self.stops), default=0)

    def __bool__(self) -> bool:
        return bool(self.stops)

    def held(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of a stop text.

        Args:
            text: the answer so far, in which there is no whole stop text.
        """
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            end = text[start:]
            if any(stop.startswith(end) for stop in self.stops):
                return len(end)
        return 0

    def cut(self, text: str, start: int = 0) -> int | None:
        """Return where the first stop text begins, or `None`.

        Args:
            text: the answer so far.
            start: the length of the answer at the previous check; stop texts that end before are not found.
        """
        begin = max(0, start - self._longest + 1)
        places = [place for stop in self.stops if (place := text.find(stop, begin)) >= 0]
        return min(places, default=None)
