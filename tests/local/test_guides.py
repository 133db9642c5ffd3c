"""Constrained decoding: what a guide lets through, and what is refused before anything is generated."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.local import Guide, GuideCompiler, guide_for

from .small_tokenizer import SmallTokenizer

EOS = 2


@pytest.fixture(scope="module")
def compiler() -> GuideCompiler:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    tokenizer = SmallTokenizer()
    return GuideCompiler(tokenizer, tokenizer.size + 40, [EOS])


def json_form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"format": "json", "schema": schema}


def walk(compiler: GuideCompiler, guide: Guide, chance: random.Random, most: int = 400) -> str | None:
    """What a model writes that chooses among the allowed tokens by chance; `None` if it is cut off."""
    tokenizer = SmallTokenizer()
    matcher = compiler.matcher(guide)
    tokens: list[int] = []
    for _ in range(most):
        if matcher.is_done:
            return tokenizer.decode(tokens, skip_special_tokens=True)
        allowed = matcher.mask().nonzero()[0].tolist()
        assert all(token < tokenizer.size for token in allowed)
        # Letters and digits alone: other bytes are allowed too, and make no text by chance.
        readable = [
            token
            for token in allowed
            if token == EOS or tokenizer.decode([token], skip_special_tokens=True).isascii()
        ]
        token = EOS if EOS in allowed else chance.choice(readable or allowed)
        matcher.accept(token)
        if token != EOS:
            tokens.append(token)
    return None


@pytest.mark.parametrize(
    "form",
    [
        json_form({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"], "additionalProperties": False}),
        json_form({"type": "array", "items": {"enum": ["x", "y/z", 'quo"te']}, "minItems": 1, "maxItems": 3}),
        json_form({"type": "string", "pattern": "^[a-c]{2,4}$"}),
        json_form({"const": {"deep": [None, True, 1.5]}}),
        {"format": "regex", "schema": r"\d{3}/[a-z]+"},
        {"format": "choice", "schema": ["yes", "no", "it is / so", "zwölf"]},
    ],
)  # fmt: skip
def test_whatever_is_chosen_among_the_allowed_tokens_has_the_form(
    compiler: GuideCompiler, form: dict[str, Any]
) -> None:
    guide = guide_for(form)
    finished = 0
    for seed in range(20):
        text = walk(compiler, guide, random.Random(seed))
        if text is not None:
            guide.check(text, "stop")
            finished += 1
    assert finished


SCHEMAS = st.deferred(
    lambda: st.one_of(
        st.just({"type": "null"}),
        st.just({"type": "boolean"}),
        st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, st.integers(-50, 50), st.integers(0, 200)),
        st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, st.integers(0, 3), st.integers(0, 4)),
        st.lists(st.one_of(st.text(max_size=5), st.integers(-99, 99), st.none(), st.booleans()), min_size=1, max_size=4).map(lambda items: {"enum": items}),
        st.builds(lambda inner, least, more: {"type": "array", "items": inner, "minItems": least, "maxItems": least + more}, SCHEMAS, st.integers(0, 2), st.integers(0, 2)),
        st.builds(
            lambda inner, required: {"type": "object", "properties": inner, "required": [key for key in inner if required], "additionalProperties": False},
            st.dictionaries(st.text("abc/\"\\", min_size=1, max_size=3), SCHEMAS, max_size=3),
            st.booleans(),
        ),
        st.lists(SCHEMAS, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
    )
)  # fmt: skip


@settings(derandomize=True, max_examples=120, deadline=None)
@given(schema=SCHEMAS, seed=st.integers(0, 9))
def test_a_schema_is_kept_or_refused(compiler: GuideCompiler, schema: dict[str, Any], seed: int) -> None:
    guide = guide_for(json_form(schema))
    try:
        compiler.require(guide)
    except UnsupportedError:
        return
    text = walk(compiler, guide, random.Random(seed))
    if text is not None:
        guide.check(text, "stop")
        assert text == text.strip()


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {"type": "null"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"if": {"type": "null"}, "then": {"type": "null"}}, "if"),
        ({"type": "object", "properties": {"a": {"contains": {}}}}, "contains"),
        ({"type": "object", "someKeyword": 1}, "someKeyword"),
    ],
)
def test_a_keyword_that_is_not_enforced_is_refused_by_name(schema: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'{word}'") as raised:
        guide_for(json_form(schema), "TinyLLM")
    assert "TinyLLM" in raised.value.message


@pytest.mark.parametrize(
    "form",
    [
        json_form({"$ref": "#/$defs/nowhere"}),
        json_form({"type": "string", "format": "no-such-format"}),
        json_form({"type": "string", "pattern": "(?=a)b"}),
        {"format": "regex", "schema": "(?=a)b"},
        {"format": "regex", "schema": r"(a)\1"},
    ],
)
def test_what_the_library_does_not_take_is_refused_with_its_reason(
    compiler: GuideCompiler, form: dict[str, Any]
) -> None:
    guide = guide_for(form)
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="cannot honour") as raised:
            compiler.require(guide)
        assert len(raised.value.message) > 60
        assert "start:" not in raised.value.message


def test_a_schema_that_is_no_json_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not JSON"):
        guide_for(json_form({"enum": [object()]}))
    with pytest.raises(ConfigurationError, match="not valid"):
        guide_for(json_form({"type": "nonsense"}))


def test_free_space_between_the_parts_of_json_is_not_allowed(compiler: GuideCompiler) -> None:
    matcher = compiler.matcher(guide_for(json_form({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})))  # fmt: skip
    tokenizer = SmallTokenizer()
    for character in '{"a":':
        allowed = {
            tokenizer.decode([token], skip_special_tokens=True) for token in matcher.mask().nonzero()[0]
        }
        assert not {" ", "\n", "\t"} & allowed
        matcher.accept(tokenizer.encode(character, add_special_tokens=False)[0])


def test_generations_do_not_share_how_far_they_have_got(compiler: GuideCompiler) -> None:
    guide = guide_for({"format": "choice", "schema": ["ab", "cd"]})
    tokenizer = SmallTokenizer()
    first, second = compiler.matcher(guide), compiler.matcher(guide)
    first.accept(tokenizer.encode("a", add_special_tokens=False)[0])
    assert second.mask().sum() > first.mask().sum()
    assert (compiler.matcher(guide).mask() == second.mask()).all()


def test_a_token_that_may_not_come_is_an_error_of_that_row(compiler: GuideCompiler) -> None:
    matcher = compiler.matcher(guide_for({"format": "choice", "schema": ["ab"]}))
    with pytest.raises(GenerationError) as raised:
        matcher.accept(SmallTokenizer().encode("z", add_special_tokens=False)[0])
    assert raised.value.kind == "schema"


def test_bits_and_truth_values_say_the_same(compiler: GuideCompiler) -> None:
    numpy = pytest.importorskip("numpy")
    matcher = compiler.matcher(guide_for({"format": "regex", "schema": "[a-f]+"}))
    words = numpy.zeros((3, compiler.words), dtype=numpy.int32)
    matcher.fill(words[1])
    bits = (words[1][:, None] >> numpy.arange(32)) & 1
    mask = matcher.mask()
    assert (bits.reshape(-1)[: len(mask)].astype(bool) == mask).all()
    assert not words[0].any()


def test_a_tokenizer_without_a_file_of_its_own_is_refused_with_what_to_do() -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    with pytest.raises(UnsupportedError, match="fast tokenizer") as raised:
        GuideCompiler(SmallTokenizer(fast=False), 400, [EOS])
    assert "tokenizer.json" in raised.value.hint


def test_equal_forms_are_one_guide_and_compiled_once(
    compiler: GuideCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = json_form({"type": "integer", "maximum": 7})
    assert guide_for(form) is guide_for(json_form(json.loads(json.dumps(form["schema"]))))
    made: list[str] = []
    original = compiler._matcher_of
    monkeypatch.setattr(
        compiler, "_matcher_of", lambda tokenizer, grammar, **more: made.append(grammar) or original(tokenizer, grammar, **more)
    )  # fmt: skip
    for _ in range(5):
        compiler.matcher(guide_for(form))
    assert len(made) == 1
