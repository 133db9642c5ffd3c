"""`InputRules`: an input that the backend cannot take is rejected before anything is sent."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.testing.base import Conformance
from stillhouse.testing.examples import FORMS, IMAGE
from stillhouse.testing.rule import Broken, expect, rule, said, unseen
from stillhouse.testing.watch import watching

__all__ = ["InputRules"]


class InputRules(Conformance):
    """An input that needs more than the declared capabilities is refused."""

    @rule
    def test_c60_undeclared_inputs_are_refused(self) -> None:
        """An input that needs an undeclared capability is an `UnsupportedError`, before anything is sent.

        Why: the provider would refuse it at best, and drop the image or the schema at worst.

        Fix: call `super().check_input(input)` in `check_input`; declare what the backend can do.
        """
        llm = self.shared()
        needing = self._needing()
        undeclared = [capability for capability in needing if capability not in llm.capabilities]
        if not undeclared:
            unseen("every capability that an input can need is declared")
        for capability in undeclared:
            input = needing[capability]
            with watching(llm) as watch:
                try:
                    self.ask(llm, [input])
                except UnsupportedError:
                    pass
                except (ConfigurationError, GenerationError) as error:
                    raise Broken(
                        f"an input that needs {capability} raised {type(error).__name__}: {said(error)}"
                    ) from error
                else:
                    raise Broken(f"{capability} is not declared, and an input that needs it was accepted")
                ((_, result),) = llm.iter_outputs([input], on_error="yield", **self.given())
            expect(isinstance(result, GenerationError), f"iter_outputs accepted what needs {capability}")
            expect(watch.calls == 0, f"the backend was asked for an input that needs {capability}")

    @rule
    def test_c61_what_is_no_input_is_refused(self) -> None:
        """An input that is neither a chat, a chat with a form nor a text is a `ConfigurationError`, before
        anything is sent.

        Why: a row with a number where a text should be is a mistake to report, not to generate for.

        Fix: call `super().check_input(input)` in `check_input`.
        """
        llm = self.shared()
        wrong: list[Any] = [5, None, {"role": "user", "content": "x"}, [5], [{"content": "no role"}]]
        for input in wrong:
            with watching(llm) as watch:
                try:
                    self.ask(llm, [input])
                except (ConfigurationError, UnsupportedError):
                    pass
                except GenerationError as error:
                    raise Broken(
                        f"the input {input!r} raised {type(error).__name__}: {said(error)}"
                    ) from error
                else:
                    raise Broken(f"the input {input!r} was accepted")
            expect(watch.calls == 0, f"the backend was asked for the input {input!r}")

    def _needing(self) -> dict[str, Any]:
        """By capability, an input that needs it and nothing else that is undeclared."""
        text = self.texts[0]
        chat = [{"role": "user", "content": text}]
        picture = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        needing: dict[str, Any] = {"chat": chat, "raw_prompt": text}
        if "chat" in self.capabilities:
            needing["images"] = [{"role": "user", "content": picture}]
            needing |= {capability: (chat, form) for capability, form in FORMS.items()}
        return needing
