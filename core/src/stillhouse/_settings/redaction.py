"""`Redactor`: masks secrets in a text by their values, in every form in which servers quote them.

Over 300 lines: it is one class, and what it finds in a text and what it masks in an error are one thing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretBytes, SecretStr

from stillhouse._settings.secrets import are_headers, is_secret, is_secret_header_value

__all__ = ["MASK", "Redactor", "named_secrets", "secret_values"]

MASK = "**********"

RUN_CHARS = 8
"""The length from which on a part of a secret is masked."""

WORD_RUN_CHARS = 16
"""The same for a secret made of words, whose parts are in ordinary messages as well."""

MIN_WHOLE_CHARS = 4

MAX_SHOWN_CHARS = 16_384
"""How much of each text of an error is kept: a backend may quote a whole answer, and masking takes time."""

_SHOWN = ("message", "hint", "request_id", "msg", "reason", "strerror")
"""The attributes in which exceptions keep what they show."""

# What people write where a server wants no key; the documentation of servers shows them.
_PLACEHOLDERS = frozenset({
    "changeme", "dummy-key", "lm-studio", "no-api-key", "no-key", "no-key-required", "not-needed",
    "not_needed", "not-required", "placeholder", "sk-no-key-required", "token-abc123", "your-api-key",
})  # fmt: skip

_SCHEME = re.compile(r"\s*(?:basic|bearer|apikey|api-key|key|token)\s+(\S.*)", re.IGNORECASE | re.DOTALL)

# Words of one case, as in "correct-horse-battery"; letters at random have no vowels for long.
_WORD = r"(?:[a-z]{1,14}|[A-Z]{1,14}|[A-Z][a-z]{1,13})"
_WORDS = re.compile(rf"{_WORD}(?:[-_./: ]+{_WORD})*")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}", re.IGNORECASE)

_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_FORM = re.compile(rf"{_PERCENT.pattern}|\+")  # a space may be a plus, and a plus itself
_JSON = re.compile(r"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[^ux])", re.DOTALL)
_HTML = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ANY = re.compile(rf"{_PERCENT.pattern}|{_JSON.pattern}|{_HTML.pattern}", re.DOTALL)
_MAX_ROUNDS = 3


class Redactor:
    """Masks secrets in texts.

    A run of at least `RUN_CHARS` characters of a secret is masked, wherever in the secret it is, so that a
    secret that is quoted in part does not pass. It is found as it is, percent-encoded, escaped as in JSON or
    in HTML, or in base64, with anything before and after it. A secret made of words is masked where it
    stands alone, and in long parts; one that is short only where it stands alone; a word that is known to
    stand for no key is not a secret.

    It takes time linear in the text. An empty one is false, and returns a text as it is.

    Args:
        secrets: the values: keys, passwords, values of headers (`Bearer …` counts without its scheme).
    """

    __slots__ = ("_alone", "_grams", "_secrets", "_seen", "_word_grams")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)
        self._grams: set[str] = set()
        self._word_grams: set[str] = set()
        self._seen: set[str] = set()
        alone: set[str] = set()
        for secret in self._secrets:
            self._add(secret, alone)
        # The longest first: one may be the beginning of another.
        ordered = "|".join(re.escape(value) for value in sorted(alone, key=len, reverse=True))
        self._alone = re.compile(rf"(?<![^\W_])(?:{ordered})(?![^\W_])") if ordered else None

    def __bool__(self) -> bool:
        return bool(self._grams or self._word_grams or self._alone)

    def __repr__(self) -> str:
        return "<Redactor>"

    def with_secrets(self, secrets: Iterable[str]) -> Redactor:
        """Return one that masks further secrets, too."""
        further = tuple(secrets)
        return Redactor([*self._secrets, *further]) if further else self

    def become(self, other: Redactor) -> None:
        """Mask what another one masks, and nothing else from now on: for secrets that expire."""
        self._secrets = other._secrets
        self._grams, self._word_grams, self._alone = other._grams, other._word_grams, other._alone

    def redact(self, text: str) -> str:
        """Return the text with the secrets in it masked; the same object if there are none."""
        if not text or not self:
            return text
        spans = self._spans(text, None)
        for pattern in (_PERCENT, _FORM, _JSON, _HTML, _ANY):
            if pattern.search(text) is None:
                continue
            decoded, places = text, None
            for _ in range(_MAX_ROUNDS):
                again, places = _decode(decoded, places, pattern)
                if again == decoded:
                    break
                decoded = again
                spans += self._spans(decoded, places)
        return _masked(text, spans) if spans else text

    def redact_error(self, error: BaseException) -> None:
        """Mask the secrets in what an error shows: message, hint, the id of its request, and its causes.

        Texts longer than `MAX_SHOWN_CHARS` are cut. A cause that shows a secret all the same, since it lets
        nobody change it, is removed.
        """
        if not self:
            return
        self._redact_one(error)
        shows = {id(error): False}
        shown = [error]
        while shown:
            one = shown.pop()
            inner = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
            links = ("__cause__", one.__cause__), ("__context__", one.__context__)
            for name, below in (*links, *(("", item) for item in inner)):
                if below is None:
                    continue
                if id(below) not in shows:
                    self._redact_one(below)
                    shows[id(below)] = self._shows(below)
                    shown.append(below)
                if name and shows[id(below)]:
                    setattr(one, name, None)

    def _redact_one(self, error: BaseException) -> None:
        for name in _SHOWN:
            # An exception's own property may refuse to be set, or raise.
            with contextlib.suppress(Exception):
                said = getattr(error, name, None)
                if isinstance(said, str) and (masked := self._redact_shown(said)) != said:
                    setattr(error, name, masked)
        with contextlib.suppress(Exception):
            if any(isinstance(item, str) for item in error.args):
                error.args = tuple(
                    self._redact_shown(item) if isinstance(item, str) else item for item in error.args
                )
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, list):
            notes[:] = [self._redact_shown(note) if isinstance(note, str) else note for note in notes]

    def _shows(self, error: BaseException) -> bool:
        """Whether what an exception says has a secret in it."""
        try:
            said = str(error)[:MAX_SHOWN_CHARS]
        except Exception:
            return False
        return self.redact(said) != said

    def _redact_shown(self, text: str) -> str:
        return self.redact(text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]} …")

    def _add(self, secret: str, alone: set[str]) -> None:
        value = secret.strip()
        scheme = _SCHEME.fullmatch(value)
        if scheme is not None:
            value = scheme.group(1).strip()
        if value.lower() in _PLACEHOLDERS or value in self._seen or len(value) < MIN_WHOLE_CHARS:
            return
        self._seen.add(value)
        if scheme is not None or ":" in value:
            self._add_login(value, is_encoded=scheme is not None, alone=alone)
        forms = {value, " ".join(value.split())}
        if not value.isascii():
            forms |= {quote(value, safe=""), quote(value)}
        forms.add(unquote(value))  # for a value that was encoded where it comes from
        is_words = _is_words(value)
        if len(value) < RUN_CHARS:
            if not is_words and not value.isdigit():
                alone |= forms
        elif is_words:
            alone |= forms
            for form in forms:
                self._word_grams |= _runs(form, WORD_RUN_CHARS)
        else:
            for form in forms:
                self._grams |= _runs(form, RUN_CHARS)
        for encoded in _in_base64(value):
            self._grams |= _runs(encoded, RUN_CHARS)

    def _add_login(self, value: str, *, is_encoded: bool, alone: set[str]) -> None:
        """Add the password of a login, `user:password` or the base64 of it."""
        login = value
        if is_encoded:
            try:
                login = base64.b64decode(value, validate=True).decode("utf-8")
            except (binascii.Error, ValueError):
                return
        _, colon, password = login.partition(":")
        if colon and login.isprintable() and "://" not in login:
            self._add(password, alone)

    def _spans(self, text: str, places: list[int] | None) -> list[tuple[int, int]]:
        """Return where secrets are in the undecoded text; `places` has the places of the characters there."""
        spans: list[tuple[int, int]] = []
        for grams, length in ((self._grams, RUN_CHARS), (self._word_grams, WORD_RUN_CHARS)):
            if not grams:
                continue
            for start in range(len(text) - length + 1):
                if text[start : start + length] in grams:
                    if spans and start <= spans[-1][1]:
                        spans[-1] = (spans[-1][0], start + length)
                    else:
                        spans.append((start, start + length))
        if self._alone is not None:
            spans += [match.span() for match in self._alone.finditer(text)]
        if places is None:
            return spans
        return [(places[start], places[end]) for start, end in spans]


def secret_values(value: Any) -> Iterator[str]:
    """Yield the values of all `SecretStr` and `SecretBytes` in a model, its lists, dicts and inner models."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode("utf-8", "replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secret_values(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secret_values(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from secret_values(item)


def named_secrets(value: Any, key: str = "") -> Iterator[str]:
    """Yield what is a secret by its name in generation parameters, such as a `user_token`."""
    todo: list[tuple[str, Any]] = [(key, value)]
    while todo:
        name, item = todo.pop()
        if isinstance(item, Mapping):
            headers = are_headers(name, item)
            for inner, given in item.items():
                inner = str(inner)
                if headers and is_secret_header_value(inner, given):
                    yield str(given)
                todo.append((inner, given))
        elif isinstance(item, (list, tuple)):
            todo.extend((name, given) for given in item)
        elif isinstance(item, str) and is_secret(name, item):
            yield item


def _is_words(value: str) -> bool:
    return _WORDS.fullmatch(value) is not None and _CONSONANTS.search(value) is None


def _runs(value: str, length: int) -> set[str]:
    return {value[start : start + length] for start in range(len(value) - length + 1)}


def _in_base64(value: str) -> set[str]:
    """Return the characters that stand for a value in the base64 of any text that it is in.

    Which they are depends on the place in the text modulo 3; those at the edges stand for other characters
    too, and are left out.
    """
    raw, found = value.encode("utf-8", "replace"), set()
    for offset in range(3):
        whole = offset + len(raw)
        encoded = base64.b64encode(b"\0" * offset + raw).decode("ascii")
        inner = encoded[-(-offset * 8 // 6) : whole * 8 // 6]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return found


def _decode(text: str, places: list[int] | None, pattern: re.Pattern[str]) -> tuple[str, list[int]]:
    """Decode what a pattern finds; the places of the characters, and of the end, in the undecoded text."""
    if places is None:
        places = list(range(len(text) + 1))
    parts: list[str] = []
    found: list[int] = []
    end = 0
    for match in pattern.finditer(text):
        start = match.start()
        parts.append(text[end:start])
        found += places[end:start]
        letters = _letters(match.group())
        parts.append(letters)
        size = match.end() - start
        # A part of the escapes is masked with all of them that its characters may be from.
        found += [places[start + position * size // len(letters)] for position in range(len(letters))]
        end = match.end()
    parts.append(text[end:])
    found += places[end:]
    return "".join(parts), found


def _letters(escape: str) -> str:
    """Return what an escape stands for; never nothing."""
    if escape[0] == "%":
        return unquote(escape, errors="replace")
    if escape == "+":
        return " "
    if escape[0] == "&":
        return html.unescape(escape) or " "
    if escape[1] in "ux":
        return chr(int(escape[2:], 16))
    return _ESCAPES.get(escape[1], escape[1])


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    parts, place = [], 0
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    for start, end in merged:
        parts += [text[place:start], MASK]
        place = end
    return "".join([*parts, text[place:]])
