"""`ModelListRules`: what `list_models` returns."""

from __future__ import annotations

from stillhouse._settings.models import problem_in
from stillhouse.errors import GenerationError, UnsupportedError
from stillhouse.testing.base import Conformance
from stillhouse.testing.rule import expect, rule, said, unseen

__all__ = ["ModelListRules"]


class ModelListRules(Conformance):
    """A list of models is one that every program can read."""

    @rule(since="0.2")
    def test_c84_listed_models_are_well_formed(self) -> None:
        """`list_models` returns a list of `ModelInfo`, loaded or not, or raises `UnsupportedError`.

        Why: people and programs choose a model from it, and its names are printed on their terminals.

        Fix: return `{"name": …}` for each model, with `context_length`, `max_new_tokens`, `created` in
        ISO 8601, `input_price` and `output_price` where they are known, and no name twice; leave the
        method alone where there is no list. An `HTTPLLM` sets `models_path` and overrides `models_in`,
        and `respond()` answers that path.
        """
        for llm in (self.new(), self.shared()):
            try:
                models = llm.list_models()
            except UnsupportedError as error:
                expect(error.hint, f"the UnsupportedError does not say what to do: {said(error)}")
                continue
            except GenerationError as error:
                if self.answers_are_scripted:
                    unseen(f"respond() does not answer with a list of models: {said(error)}")
                raise
            problem = problem_in(models)
            expect(not problem, f"in what list_models returned, {problem}")
