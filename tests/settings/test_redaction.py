"""Secrets are masked by their values, however a server quotes them."""

from __future__ import annotations

import base64
import html
import json
import string
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError
from stillhouse._settings.redaction import MASK, MAX_SHOWN_CHARS, Redactor

KEY = "sk-proj-4fX9+q/Zt7=Lm2&Kp"


def percent(text: str) -> str:
    return quote(text, safe="")


def lower_percent(text: str) -> str:
    return "".join(f"%{byte:02x}" if not chr(byte).isalnum() else chr(byte) for byte in text.encode())


def every_percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def unicode_escapes(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


def json_escaped(text: str) -> str:
    return json.dumps(text)[1:-1].replace("/", "\\/")


def html_numbers(text: str) -> str:
    return "".join(f"&#{ord(letter)};" for letter in text)


def html_hex(text: str) -> str:
    return "".join(f"&#x{ord(letter):X};" for letter in text)


QUOTED: dict[str, Callable[[str], str]] = {
    "whole": str,
    "percent": percent,
    "percent in lower case": lower_percent,
    "every character percent": every_percent,
    "form": quote_plus,
    "twice percent": lambda text: percent(percent(text)),
    "JSON": json_escaped,
    "JSON in JSON": lambda text: json_escaped(json_escaped(text)),
    "JSON by numbers": unicode_escapes,
    "repr": lambda text: repr(text)[1:-1],
    "HTML": html.escape,
    "HTML by numbers": html_numbers,
    "HTML in hexadecimals": html_hex,
    "HTML of JSON": lambda text: html.escape(json_escaped(text)),
    "JSON of percent": lambda text: json_escaped(percent(text)),
}
BASE64: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a login": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 of a login with another user": lambda text: base64.b64encode(f"u:{text}\n".encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(f"us:{text}".encode()).decode(),
}


def runs(text: str, length: int = 8) -> set[str]:
    return {text[start : start + length] for start in range(len(text) - length + 1)}


@pytest.mark.parametrize("form", [*QUOTED, *BASE64])
def test_secret_is_masked_in_every_form(form: str) -> None:
    quoted = {**QUOTED, **BASE64}[form](KEY)
    redacted = Redactor([f"Bearer {KEY}"]).redact(f"Incorrect key provided: {quoted}. See the page.")
    assert redacted.startswith("Incorrect key provided: ")
    assert redacted.endswith(". See the page.")
    assert MASK in redacted
    assert not runs(quoted) & runs(redacted)
    if form in QUOTED:
        assert redacted == f"Incorrect key provided: {MASK}. See the page."


@pytest.mark.parametrize("cut", [KEY[:8], KEY[:15], KEY[-8:], KEY[4:16], KEY[:10] + "…" + KEY[-9:]])
def test_secret_that_was_cut_is_masked(cut: str) -> None:
    redacted = Redactor([KEY]).redact(f"key {cut} is wrong")
    assert not runs(KEY) & runs(redacted)
    assert redacted.startswith("key **")
    assert redacted.endswith("** is wrong")


def test_what_servers_mask_themselves_stays() -> None:
    text = "Incorrect API key provided: sk-p**************2&Kp."
    assert Redactor([KEY]).redact(text) == text


@pytest.mark.parametrize(
    ("secrets", "text"),
    [
        (["not-needed"], "a key is not-needed here; not-needed"),
        (["none", "EMPTY", "ollama", "key"], "none: the ollama server is EMPTY, a key is missing"),
        (["production"], "reproduction of the productions"),
        (["research-team-north"], "a team for research in the north-west, research-team"),
        (["1234567"], "12345678 tokens of 1234567"),
        (["a", "", " ", "ab"], "a and ab"),
        ([KEY], "sk-proj keys begin with sk-proj"),
        (["Bearer " + KEY], "the scheme Bearer sk- is expected, with a Bearer token"),
    ],
)
def test_ordinary_words_stay(secrets: list[str], text: str) -> None:
    assert Redactor(secrets).redact(text) == text


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("production", "the login production is wrong", f"the login {MASK} is wrong"),
        ("correct-horse-battery-staple", "got correct-horse-batte…", f"got {MASK}…"),
        ("p@ss1", "user:p@ss1@host", f"user:{MASK}@host"),
        ("key-12", "'key-12'", f"'{MASK}'"),
        ("Basic " + base64.b64encode(b"user:hunter-2-hunter").decode(), "hunter-2-hunter", MASK),
        ("user:hunter-2-hunter", "password hunter-2-hunter", f"password {MASK}"),
        ("pässwörd-1", "p%C3%A4ssw%C3%B6rd-1", MASK),
        ("p+ss word 12", "p%2Bss+word+12", MASK),
        ("ab%2Bcd%2Fef%3D", "ab+cd/ef=", MASK),
        (KEY + "\n", KEY, MASK),
        # A secret that looks escaped itself.
        ('ab&amp;cd"ef1', 'ab&amp;cd\\"ef1', MASK),
        ('ab&amp;c+d"ef1', "ab&amp;c+d%22ef1", MASK),
        (r"ab\ncd&ef12", r"ab\ncd&amp;ef12", MASK),
        ("12345678", "id 12345678", f"id {MASK}"),
    ],
)
def test_secrets_of_every_kind_are_masked(secret: str, text: str, shown: str) -> None:
    assert Redactor([secret]).redact(text) == shown


def test_several_secrets_and_overlaps_are_masked_once() -> None:
    redactor = Redactor(["abcd1234efgh", "1234efghijkl", "zz-99-zz"])
    assert redactor.redact("x abcd1234efghijkl zz-99-zz") == f"x {MASK} {MASK}"


def test_empty_redactor_is_false_and_returns_the_text_itself() -> None:
    text = "any text %41"
    for redactor in (Redactor(), Redactor(["", "not-needed", "abc"])):
        assert not redactor
        assert redactor.redact(text) is text
    assert Redactor([KEY])


def test_redactor_shows_nothing() -> None:
    redactor = Redactor([KEY])
    assert repr(redactor) == str(redactor) == "<Redactor>"
    assert not hasattr(redactor, "__dict__")


def test_errors_and_their_causes_are_masked() -> None:
    cause = ValueError(f"cause {KEY}", 5)
    cause.add_note(f"note {KEY}")
    error = GenerationError(f"message {KEY}", hint=f"hint {KEY}", request_id=f"id-{KEY}")
    error.__cause__ = cause
    cause.__context__ = error
    Redactor([KEY]).redact_error(error)
    shown = f"{error} {error!r} {error.__dict__} {cause!r} {cause.__notes__}"
    assert not runs(KEY) & runs(shown)
    assert error.message == f"message {MASK}"
    assert cause.args == (f"cause {MASK}", 5)


SECRETS = st.text(alphabet=string.ascii_letters + string.digits + "-_+/=.%&\"'\\<~ ", min_size=8, max_size=40)


@settings(max_examples=400, derandomize=True, deadline=None)
@given(
    SECRETS.map(str.strip).filter(lambda text: len(text) >= 8 and any(map(str.isdigit, text))),
    st.sampled_from(list(QUOTED)),
    st.text(max_size=20),
    st.text(max_size=20),
    st.data(),
)
@example('a%2Bb"c\\d&e9', "JSON", "", "", None)
@example("00000000", "whole", "0", "0", None)
def test_no_run_of_a_secret_survives(
    secret: str, form: str, before: str, after: str, data: st.DataObject | None
) -> None:
    part = secret
    if data is not None:
        start = data.draw(st.integers(0, len(secret) - 8))
        part = secret[start : data.draw(st.integers(start + 8, len(secret)))]
    quoted = QUOTED[form](part)
    redacted = Redactor([secret]).redact(before + quoted + after)
    kept = {
        run for run in runs(quoted) & runs(redacted) if run not in before + MASK and run not in MASK + after
    }
    assert not kept
    assert not runs(secret) & runs(redacted)
    assert MASK in redacted


def test_time_is_linear_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the characters that each pass looks at: a pass sees each of them once."""
    seen: list[int] = []
    spans = Redactor._spans

    def counted(self: Redactor, text: str, places: list[int] | None) -> list[tuple[int, int]]:
        seen.append(len(text))
        return spans(self, text, places)

    monkeypatch.setattr(Redactor, "_spans", counted)
    redactor = Redactor([KEY])
    for part in ("%", "%25", "\\", "\\u0041", "&", "&amp;", "&#", "sk-proj-", KEY):
        seen.clear()
        text = part * (20_000 // len(part))
        redactor.redact(text)
        assert sum(seen) <= 16 * len(text)


class Frozen(Exception):
    """An exception that lets nobody change it, as a frozen dataclass does."""

    def __init__(self, message: str) -> None:
        object.__setattr__(self, "message", message)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)

    @property
    def args(self) -> tuple[str]:  # type: ignore[override]
        return (self.message,)  # type: ignore[attr-defined, no-any-return]

    def __str__(self) -> str:
        return self.args[0]


class Templated(Exception):
    """An exception whose message is computed, as Jinja's are."""

    @property
    def message(self) -> str:
        return str(self.args[0])


class Kept(Exception):
    """An exception that shows an attribute, not its arguments."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def __str__(self) -> str:
        return self.message


@pytest.mark.parametrize("cls", [Frozen, Templated, Kept, GenerationError, OSError, ValueError])
@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_no_class_of_exception_shows_a_secret_or_stops_the_masking(cls: type, link: str) -> None:
    """An exception that cannot be changed raised an error of its own, and a cause kept its `message`."""
    error, below = GenerationError(f"no {KEY}"), GenerationError("between")
    below.__cause__ = below.__context__ = cls(f"wrong key {KEY}")
    setattr(error, link, below)
    Redactor([KEY]).redact_error(error)
    shown = "".join(traceback.format_exception(error))
    assert KEY not in shown
    assert "between" in shown


def test_the_members_of_a_group_are_masked() -> None:
    error = GenerationError("failed")
    error.__cause__ = ExceptionGroup("several", [ValueError(f"wrong key {KEY}"), Kept(f"wrong key {KEY}")])
    Redactor([KEY]).redact_error(error)
    assert KEY not in "".join(traceback.format_exception(error))


def test_an_error_that_quotes_a_whole_answer_is_cut() -> None:
    """Masking takes time in proportion to the text: an answer of some MiB held up the run for seconds."""
    error = ValueError("odd: " + "%41" * 2**20 + KEY)
    Redactor([KEY]).redact_error(error)
    assert len(error.args[0]) < 2 * MAX_SHOWN_CHARS
