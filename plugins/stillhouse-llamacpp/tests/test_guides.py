"""The forms that this backend refuses, and how it tries one on the engine."""

from __future__ import annotations

import pytest

from stillhouse import UnsupportedError
from stillhouse.local import guide_for
from stillhouse_llamacpp import LlamaCppLLM
from stillhouse_llamacpp.guides import SENTINEL, probe_of

CHOICE = {"format": "choice", "schema": ["a", "start: b"]}


def test_a_keyword_that_is_not_enforced_is_refused_at_construction() -> None:
    with pytest.raises(UnsupportedError, match=r"LlamaCppLLM.*'uniqueItems'"):
        LlamaCppLLM(structured_output={"format": "json", "schema": {"type": "array", "uniqueItems": True}})


def test_a_probe_is_the_form_after_a_word_that_no_model_writes() -> None:
    head, start, answer = probe_of(guide_for(CHOICE)).splitlines()
    assert head == "%llguidance {}"
    assert start == f'start: "{SENTINEL}" answer'
    assert answer == 'answer: "a" | "start: b"'


def test_the_llm_prepares_the_field_of_a_request() -> None:
    assert LlamaCppLLM()._prepare_structured_output(CHOICE) == {"grammar": guide_for(CHOICE).grammar}
