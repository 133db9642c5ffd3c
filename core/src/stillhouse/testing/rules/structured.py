"""`StructuredOutputRules`: every generation has the form that was asked for."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stillhouse.testing.base import Conformance
from stillhouse.testing.examples import FORMS, OTHER_FORMS
from stillhouse.testing.rule import expect, rule

__all__ = ["StructuredOutputRules"]

_FORM_TOKENS = 64


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    river: str
    country: Literal["Peru", "Chile"]


class StructuredOutputRules(Conformance):
    """A declared form of structured output is honoured, for the LLM's form and an input's own."""

    @rule(capability="json_schema", after="C05")
    def test_c78_json_follows_its_schema(self) -> None:
        """With a JSON schema every generation is JSON that validates against it.

        Why: `json_schema` is declared.

        Fix: use the engine's own mechanism, check what comes back and raise an error of the kind
        `schema`; or take `json_schema` out of the capabilities.
        """
        self._held_to(FORMS["json_schema"], OTHER_FORMS["json_schema"])

    @rule(capability="regex", after="C05")
    def test_c79_a_pattern_is_matched(self) -> None:
        """With a pattern every generation matches it from beginning to end.

        Why: `regex` is declared.

        Fix: use the engine's grammar for it, or take `regex` out of the capabilities.
        """
        self._held_to(FORMS["regex"], OTHER_FORMS["regex"])

    @rule(capability="choice", after="C05")
    def test_c80_a_choice_is_one_of_those_given(self) -> None:
        """With choices every generation is one of them.

        Why: `choice` is declared.

        Fix: use the engine's grammar for it, or take `choice` out of the capabilities.
        """
        self._held_to(FORMS["choice"], OTHER_FORMS["choice"])

    def _held_to(self, form: dict[str, Any], other: dict[str, Any] | None = None) -> None:
        """Validate generations against a form: the input's, while the LLM has `other`, then the LLM's."""
        llm = self.shared()
        names = type(llm).generation_parameters().parameters
        more = {"max_new_tokens": _FORM_TOKENS} if "max_new_tokens" in names else {}
        expect("structured_output" in type(llm).model_fields, "there is no field structured_output")
        chat: Any = self.input_of(self.texts[0])
        setattr(llm, "structured_output", other)  # noqa: B010  -- not every LLM has the field
        outputs = self.ask(llm, [(chat, form)], num_generations=2, **more)  # type: ignore[list-item]
        setattr(llm, "structured_output", form)  # noqa: B010
        outputs += self.ask(llm, [chat], **more)
        for text in (text for output in outputs for text in output["generations"]):
            problem = _form_problem(form, text)
            expect(not problem, f"the generation {text!r}: {problem}")


def _form_problem(form: dict[str, Any], text: str | None) -> str:
    if text is None:
        return "there is none"
    if form["format"] == "regex":
        return "" if re.fullmatch(form["schema"], text) else f"it does not match {form['schema']}"
    if form["format"] == "choice":
        return "" if text in form["schema"] else f"it is not one of {form['schema']}"
    try:
        _Answer.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        return f"it does not validate against the schema: {str(error).splitlines()[0]}"
    return ""
