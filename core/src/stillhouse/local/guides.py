"""Constrained decoding: enforces the form of an answer while an engine on this machine generates it.

The library is LLGuidance, which is compiled into llama.cpp and is a package for other engines. A JSON schema
may contain only keywords that it enforces; any other form is rejected before anything is generated. Every
answer is still checked, because it may have been cut off.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.structured import AnswerForm, answer_problem, check_schema, normalize_structured_output

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

__all__ = ["GUIDE_HEAD", "GUIDE_KEYWORDS", "Guide", "GuideCompiler", "Matcher", "guide_for"]

GUIDE_KEYWORDS = frozenset(
    {
        "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength",
        "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
        "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords of JSON Schema that LLGuidance enforces."""

GUIDE_HEAD = "%llguidance {}\n"
"""What a grammar of LLGuidance begins with."""

_ESCAPES = {"/": r"\/", "\n": r"\n", "\r": r"\r"}

_REMEMBERED = 64


@dataclass(frozen=True)
class Guide(AnswerForm):
    """The form of an answer, for an engine.

    Attributes:
        body: the form, as an expression of a grammar of LLGuidance.
        llm: the class of the LLM, for messages.
    """

    body: str
    llm: str

    @property
    def grammar(self) -> str:
        """The grammar of an answer."""
        return f"{GUIDE_HEAD}start: {self.body}"

    def refusal(self, reason: str = "") -> UnsupportedError:
        """Return the error for a guide that the engine rejects.

        Args:
            reason: the reason, in the engine's words.
        """
        hints = {
            "json": "it may have a reference that leads nowhere, a format or a pattern that is not known, "
            "bounds that exclude each other, or a oneOf with overlapping branches",
            "regex": "it has no look-around, no back-reference, no \\b and no \\Z; a whole answer is matched",
            "choice": "remove empty choices",
        }
        return UnsupportedError(
            f"{self.llm} cannot honour this structured output ({self.format}): "
            f"{reason or 'the engine does not take it'}",
            hint=hints[self.format],
        )


def guide_for(structured_output: Any, llm: str = "the LLM") -> Guide:
    """Return the guide for a structured output, in any of its shapes; equal ones give the same guide.

    `mode` and `max_retries` have no effect: they are for backends that retry.

    Args:
        structured_output: the form.
        llm: the class of the LLM, for messages.

    Raises:
        ConfigurationError: it has another shape, or the schema is not valid.
        UnsupportedError: the schema has a keyword that is not enforced.
    """
    normal = normalize_structured_output(structured_output)
    assert normal is not None
    try:
        schema = json.dumps(normal["schema"])
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the schema is not JSON: {error}", hint="correct the schema") from None
    return _guide(normal["format"], schema, normal.get("whitespace_pattern"), llm)


@functools.lru_cache(maxsize=256)
def _guide(format: str, schema: str, whitespace: str | None, llm: str) -> Guide:
    content = json.loads(schema)
    if format == "json":
        check_schema(content, GUIDE_KEYWORDS, llm)
        body = _json_body(content, whitespace)
    elif format == "regex":
        body = f"/{_expression(content)}/"
    else:
        body = " | ".join(json.dumps(choice) for choice in content)
    return Guide(format, answer_problem({"format": format, "schema": content}), body, llm)  # type: ignore[typeddict-item]


def _expression(pattern: str) -> str:
    """Write a pattern as it stands between the slashes of a grammar.

    A slash would end the expression and a line break the line. `\\d` would also take the digits of
    every other script, and a small model does write them; those of ASCII are what is meant.
    """
    in_class = False

    def rewritten(match: re.Match[str]) -> str:
        nonlocal in_class
        part = match[0]
        if part == "[":
            in_class = True
        elif part == "]":
            in_class = False
        elif part == r"\d":
            return "0-9" if in_class else "[0-9]"
        return _ESCAPES.get(part[-1], part)

    return re.sub(r"(?s)\\.|[/\n\r\[\]]", rewritten, pattern)


def _json_body(schema: dict[str, Any], whitespace: str | None) -> str:
    # Free white space lets a small model write nothing else until it is cut off.
    spacing = {"whitespace_flexible": False} if whitespace is None else {"whitespace_pattern": whitespace}
    return "%json " + json.dumps({**schema, "x-guidance": spacing})


class Matcher:
    """The progress of one answer within its form. Use it for one generation, from one thread."""

    def __init__(self, matcher: Any, vocabulary_size: int, words: int) -> None:
        self._matcher = matcher
        self._size = vocabulary_size
        self._words = words

    @property
    def is_done(self) -> bool:
        """Whether the form is complete, so that only the end of the answer may follow."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> NDArray[numpy.bool_]:
        """Return which tokens may come next, as an array of `vocabulary_size` Booleans.

        Raises:
            GenerationError: the library gave up on the form, for example because it became too large.
        """
        import numpy

        words = numpy.zeros(self._words, dtype=numpy.int32)
        self.fill(words)
        return numpy.unpackbits(words.view(numpy.uint8), bitorder="little")[: self._size].astype(bool)

    def fill(self, words: NDArray[numpy.int32]) -> None:
        """Write which tokens may come next as bits, the lowest first, into a row of 32-bit words.

        Args:
            words: contiguous, `GuideCompiler.words` of them.

        Raises:
            GenerationError: as for `mask`.
        """
        try:
            self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        except Exception as error:
            raise _gave_up(error) from error
        if self._matcher.is_error():
            raise _gave_up(self._matcher.get_error())

    def accept(self, token: int) -> None:
        """Advance by a generated token.

        Raises:
            GenerationError: the token is not allowed here, or the library gave up on the form.
        """
        if not self._matcher.consume_token(token):
            raise _gave_up(self._matcher.get_error() or f"token {token} may not come here")


def _gave_up(reason: object) -> GenerationError:
    first_line = str(reason).strip().partition("\n")[0]
    return GenerationError(
        f"the form could not be followed: {first_line}",
        kind="schema",
        hint="simplify the schema or the pattern",
    )


class GuideCompiler:
    """Compiles guides for the tokenizer of a model. It may be called from any thread.

    Args:
        tokenizer: a fast tokenizer of the library `transformers` (it has a `backend_tokenizer`).
        vocabulary_size: the width of the model's logits.
        eos_ids: the tokens that end an answer.

    Attributes:
        words: how many 32-bit words hold a bit for each token.

    Raises:
        UnsupportedError: the tokenizer is of a kind that the library cannot read.
    """

    def __init__(self, tokenizer: Any, vocabulary_size: int, eos_ids: Sequence[int]) -> None:
        library = _llguidance()
        self._matcher_of = library.LLMatcher
        self._size = vocabulary_size
        self._lock = threading.Lock()
        self._pristine: OrderedDict[str, Any] = OrderedDict()  # by grammar
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedError(
                f"structured output needs a fast tokenizer, and this is a {type(tokenizer).__name__}",
                hint="use a model with a tokenizer.json",
            )
        own = type(backend).from_str(backend.to_str())
        own.no_padding()
        own.no_truncation()
        # Most models have more logits than tokens; a few have fewer.
        tokens = max(vocabulary_size, own.get_vocab_size())
        self.words = (tokens + 31) // 32
        try:
            self._tokenizer = library.LLTokenizer(own.to_str(), n_vocab=tokens, eos_token=list(eos_ids))
        except Exception as error:
            raise UnsupportedError(
                f"LLGuidance cannot read the model's tokenizer: {str(error).partition(chr(10))[0]}",
                hint="use this model without a structured output",
            ) from error

    def require(self, guide: Guide) -> None:
        """Check that the library accepts a guide.

        Raises:
            UnsupportedError: the library rejects it; the message says why.
        """
        self._compiled(guide)

    def matcher(self, guide: Guide) -> Matcher:
        """Return the matcher of a new generation.

        Raises:
            UnsupportedError: as for `require`.
        """
        return Matcher(self._compiled(guide).deep_copy(), self._size, self.words)

    def _compiled(self, guide: Guide) -> Any:
        grammar = guide.grammar
        with self._lock:
            pristine = self._pristine.get(grammar)
            if pristine is None:
                pristine = self._matcher_of(self._tokenizer, grammar, log_level=0)
                if pristine.is_error():
                    raise guide.refusal(_reason(pristine.get_error()))
                self._pristine[grammar] = pristine
                if len(self._pristine) > _REMEMBERED:
                    self._pristine.popitem(last=False)
            self._pristine.move_to_end(grammar)
            return pristine


def _reason(error: str) -> str:
    """The library's reason without the place in the grammar, which nobody has seen."""
    return re.sub(r"^at \d+\(\d+\): ", "", error.strip().partition("\n")[0])[:300]


def _llguidance() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError:
        raise ConfigurationError(
            "structured output of this LLM needs llguidance, which is not installed",
            hint=install_command("stillhouse[local]"),
        ) from None
