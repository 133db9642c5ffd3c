"""`SettingsRules`: fields, parameters and files: what is accepted, what is kept, what is hidden."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stillhouse.errors import ConfigurationError
from stillhouse.llm import LLM
from stillhouse.testing.base import Conformance
from stillhouse.testing.fields import SECRET, holds_secret, is_plain, is_secret, secret_for
from stillhouse.testing.rule import Broken, expect, rule, said, unseen
from stillhouse.testing.watch import watching

__all__ = ["SettingsRules"]

_OTHER_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "maximum_tokens": "max_new_tokens",
    "temp": "temperature",
    "topp": "top_p",
    "p": "top_p",
    "topk": "top_k",
    "k": "top_k",
    "stop_sequences": "stop",
    "stop_sequence": "stop",
    "stop_strings": "stop",
    "stop_words": "stop",
    "random_seed": "seed",
    "rng_seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "rep_penalty": "repetition_penalty",
    "n": "num_generations",
    "num_samples": "num_generations",
    "num_return_sequences": "num_generations",
    "functions": "tools",
    "extra_args": "extra_body",
    "extra_kwargs": "extra_body",
    "additional_parameters": "extra_body",
}

_MODEL_FIELDS = {"model_id", "model_path", "model_name_or_path", "engine", "deployment", "deployment_name"}


class SettingsRules(Conformance):
    """Wrong names and values are refused; what is saved comes back; secrets are shown nowhere."""

    @rule
    def test_c30_what_is_saved_comes_back_equal(self) -> None:
        """`dump()` gives JSON types with which `from_dict` makes an equal LLM; so do JSON and YAML files.

        Why: settings are saved, and used again on another machine.

        Fix: give fields types that JSON knows, or `Field(exclude=True)`; do not override `dump`.
        """
        llm = self.new()
        data = llm.dump()
        text = json.dumps(data)
        again = [LLM.from_dict(json.loads(text), self.registry)]
        with tempfile.TemporaryDirectory() as folder:
            for name in ("llm.json", "llm.yaml"):
                llm.save(Path(folder) / name)
                again.append(LLM.from_file(Path(folder) / name, self.registry))
        fields = type(llm).model_fields
        kept = [name for name in fields if not fields[name].exclude and not holds_secret(fields[name])]
        for other in again:
            expect(type(other) is type(llm), f"a {type(other).__name__} comes back")
            lost = [name for name in kept if getattr(other, name) != getattr(llm, name)]
            expect(not lost, f"these fields come back with other values: {', '.join(lost)}")

    @rule
    def test_c31_secrets_are_shown_nowhere(self) -> None:
        """No secret is in a dump, a saved file, a `repr`, a `str`, or the error of a wrong value.

        Why: files and logs are shared; a key in one of them has to be revoked.

        Fix: annotate the field as `pydantic.SecretStr`; do not override `dump` or `__repr__`, and do
        not set `hide_input_in_errors` to False.
        """
        llm = self.new()
        for name, field in type(llm).model_fields.items():
            if is_secret(field):
                setattr(llm, name, secret_for(field))
            elif "header" in name:
                setattr(llm, name, {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET})
        shown = {"repr": repr(llm), "str": str(llm), "dump": json.dumps(llm.dump())}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "llm.json"
            llm.save(path)
            shown["save"] = path.read_text(encoding="utf-8")
        for name in type(llm).model_fields:
            where = f"the error of a wrong {name}"
            for value in ([[SECRET]], {"key": [SECRET]}):
                before = dict(llm.__dict__)
                try:
                    setattr(llm, name, value)
                except (ValidationError, ConfigurationError) as error:
                    shown[where] = f"{shown.get(where)} {error} {error!r}"
                object.__setattr__(llm, "__dict__", before)
        leaks = [where for where, text in shown.items() if SECRET in text]
        expect(not leaks, f"the secret is in: {', '.join(leaks)}")

    @rule
    def test_c32_unknown_fields_are_refused(self) -> None:
        """A field that does not exist is an error, in code and in a file.

        Why: a misspelt setting that is silently ignored costs a whole run.

        Fix: leave `extra="forbid"` in `model_config` as it is.
        """
        llm = self.new()
        make: Any = type(llm)
        data = llm.dump()
        given = {name: getattr(llm, name) for name in type(llm).model_fields}
        calls: dict[str, Callable[[], LLM]] = {
            "the class": lambda: make(**given, no_such_field=1),
            "from_dict": lambda: LLM.from_dict({**data, "no_such_field": 1}, self.registry),
        }
        for where, call in calls.items():
            try:
                call()
            except (ValidationError, ConfigurationError):
                continue
            raise Broken(f"{where} accepted a field that does not exist")

    @rule
    def test_c33_assignments_are_validated(self) -> None:
        """A wrong value is refused when it is assigned, and the field keeps its value.

        Why: otherwise it fails much later, in the middle of a run.

        Fix: leave `validate_assignment=True` in `model_config`; call `super()` in `__setattr__`.
        """
        llm = self.new()
        wrong: dict[str, Any] = {"generation_kwargs": 5}
        wrong |= {name: object() for name, field in type(llm).model_fields.items() if is_plain(field)}
        for name, value in wrong.items():
            before = getattr(llm, name)
            try:
                setattr(llm, name, value)
            except (ValidationError, ConfigurationError):
                expect(getattr(llm, name) == before, f"{name} changed although the value was refused")
            else:
                raise Broken(f"{name} accepted {value!r}")

    @rule
    def test_c34_the_model_is_chosen_by_the_field_model(self) -> None:
        """Where a field chooses the model, it is `model`.

        Why: `--llm NAME:MODEL` and every other backend set that field.

        Fix: rename the field to `model`; a pydantic alias may keep the old name.
        """
        other = sorted(_MODEL_FIELDS & set(self.cls.model_fields))
        has_model = "model" in self.cls.model_fields
        if not has_model and not other:
            unseen("no field chooses the model")
        expect(has_model or not other, f"there is no field model, but {', '.join(other)}")

    @rule
    def test_c35_unknown_parameters_are_refused(self) -> None:
        """A generation parameter that does not exist is refused, with near matches, before anything is
        sent.

        Why: a misspelt `temperature` that is dropped, or refused by the provider row by row, costs a
        whole run.

        Fix: write the parameters out in the signature instead of `**kwargs`; offer `extra_body` for
        the rest.
        """
        llm = self.shared()
        names = list(self.cls.generation_parameters().parameters)
        wrong = f"{names[0][:-1]}" if names and len(names[0]) > 4 else "no_such_parameter"
        with watching(llm) as watch:
            try:
                self.ask(llm, self.inputs(1), **{wrong: 1})
            except ConfigurationError as error:
                near = not names or wrong == "no_such_parameter" or names[0] in str(error)
                expect(
                    near, f"the error does not say that {names and names[0]!r} may be meant: {said(error)}"
                )
            else:
                raise Broken(f"the parameter {wrong!r} was accepted")
        expect(watch.calls == 0, "the backend was asked before the parameters were checked")

    @rule
    def test_c36_generation_kwargs_hold_and_arguments_win(self) -> None:
        """`generation_kwargs` are applied to every call, and an explicit argument wins over them.

        Why: a run is configured once, and a single call may differ.

        Fix: do not override `generate_outputs`; in `get_generation_kwargs` add to `super()`'s.
        """
        llm = self.shared()
        name, first, second = self._two_values(llm)
        if not name:
            unseen("there is no parameter that takes a number")
        rest = {key: value for key, value in self.given().items() if key != name}
        llm.generation_kwargs = {**rest, name: first}
        with watching(llm) as watch:
            llm.generate_outputs(self.inputs(1))
            llm.generate_outputs(self.inputs(1), **{name: second})
        seen = [arguments.get(name) for arguments in watch.arguments]
        expect(seen[:1] == [first], f"{name}={first} in generation_kwargs arrived as {seen[:1]}")
        expect(seen[-1:] == [second], f"the argument {name}={second} arrived as {seen[-1:]}")

    @rule
    def test_c37_every_parameter_is_documented(self) -> None:
        """The docstring of `generate`, or of `agenerate`, has a line for every generation parameter.

        Why: `stillhouse show`, the command line's errors and the documentation print it.

        Fix: add the missing lines to the `Args:` of the docstring.
        """
        parameters = self.cls.generation_parameters()
        if not parameters.parameters:
            unseen("there are no generation parameters")
        missing = [name for name in parameters.parameters if not parameters.descriptions.get(name)]
        expect(not missing, f"not documented: {', '.join(missing)}")
        untyped = [name for name, annotation in parameters.annotations.items() if annotation is Any]
        expect(not untyped, f"without a type: {', '.join(untyped)}")

    @rule
    def test_c38_parameters_have_the_common_names(self) -> None:
        """A parameter that the common vocabulary names has that name.

        Why: the same command must run on every backend.

        Fix: rename the parameter in the signature, and translate it in the request.
        """
        names = self.cls.generation_parameters().parameters
        if not names:
            unseen("there are no generation parameters")
        wrong = [f"{name} (it is {_OTHER_NAMES[name]})" for name in names if name in _OTHER_NAMES]
        expect(not wrong, f"other names than the common ones: {', '.join(wrong)}")

    def _two_values(self, llm: LLM) -> tuple[str, Any, Any]:
        """A parameter and two values of it that the backend takes."""
        names = self.cls.generation_parameters().parameters
        for name, first, second in (
            ("max_new_tokens", 11, 9),
            ("seed", 3, 4),
            ("top_k", 11, 9),
            ("temperature", 0.5, 0.25),
        ):
            if name in names:
                return name, first, second
        for name in names:
            try:
                llm.check_arguments({name: 1})
                llm.check_arguments({name: 2})
            except ConfigurationError:
                continue
            return name, 1, 2
        return "", None, None
