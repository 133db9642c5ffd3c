"""`CapabilityRules`: what is declared works, and what works is declared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import OfflineBatchNotFinishedError
from stillhouse.llm import LLM
from stillhouse.offline.contract import OfflineBatchMixin
from stillhouse.testing.examples import FORMS, IMAGE, TOOL
from stillhouse.testing.rule import Broken, expect, rule, warn
from stillhouse.testing.rules.structured import StructuredOutputRules
from stillhouse.typing import CAPABILITIES, Capability, GenerateOutput

__all__ = ["CapabilityRules"]

_MAX_POLLS = 50


class CapabilityRules(StructuredOutputRules):
    """Declared and failing breaks a rule; working and undeclared is a warning."""

    @rule
    def test_c70_capabilities_are_known_ones(self) -> None:
        """`capabilities` is a frozenset of known names, with `chat` or `raw_prompt` among them.

        Why: inputs that need anything else are refused, and people choose a backend by it.

        Fix: write `capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", …})`.
        """
        declared = self.new().capabilities
        expect(isinstance(declared, frozenset), f"capabilities is a {type(declared).__name__}")
        unknown = sorted(set(declared) - CAPABILITIES)
        expect(not unknown, f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(CAPABILITIES))}")
        expect({"chat", "raw_prompt"} & declared, "it takes neither chats nor raw prompts")

    @rule(capability="chat")
    def test_c71_chats_are_answered(self) -> None:
        """A chat with a system message and several turns is answered.

        Why: `chat` is declared.

        Fix: send every message with its role, or take `chat` out of the capabilities.
        """
        chat: Any = [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": self.texts[0]},
            {"role": "assistant", "content": "Ucayali."},
            {"role": "user", "content": [{"type": "text", "text": self.texts[1]}]},
        ]
        self._answer(self.ask(self.shared(), [chat]))

    @rule(capability="raw_prompt")
    def test_c72_raw_prompts_are_continued(self) -> None:
        """A text is sent unchanged, without a chat template, and continued.

        Why: `raw_prompt` is declared.

        Fix: send a `str` to the engine's completion; or take `raw_prompt` out of the capabilities.
        """
        self._answer(self.ask(self.shared(), [self.texts[0]]))

    @rule(capability="images")
    def test_c73_images_are_read(self) -> None:
        """A message with an `image_url` part, here a `data:` address, is answered.

        Why: `images` is declared.

        Fix: translate the parts of a message, or take `images` out of the capabilities.
        """
        parts = [{"type": "text", "text": self.texts[0]}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        chat: Any = [{"role": "user", "content": parts}]
        self._answer(self.ask(self.shared(), [chat]))

    @rule(capability="tools")
    def test_c74_tools_are_taken(self) -> None:
        """`tools` in OpenAI's format is a generation parameter, and a chat with calls and results is
        continued.

        Why: `tools` is declared.

        Fix: give `agenerate` the parameter `tools`, return calls under `tool_calls`, and send messages
        with `tool_calls` and of the role `tool`; or take `tools` out of the capabilities.
        """
        expect("tools" in self.cls.generation_parameters().parameters, "there is no parameter tools")
        llm = self.shared()
        call: dict[str, Any] = {"id": "call_1", "type": "function"}
        call |= {"function": {"name": "length_of", "arguments": '{"river": "Ucayali"}'}}
        question: dict[str, Any] = {"role": "user", "content": self.texts[0]}
        history: Any = [
            question,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "1771"},
        ]
        question_alone: Any = [question]
        for chat in (question_alone, history):
            (output,) = self._answer(self.ask(llm, [chat], tools=[TOOL]))
            for calls in output.get("tool_calls") or ():
                named = all(item.get("function", {}).get("name") for item in calls or ())
                expect(named, f"tool_calls holds {calls!r}, which names no function")

    @rule(capability="num_generations", after="C05")
    def test_c75_one_call_makes_several_generations(self) -> None:
        """One call makes several generations of an input.

        Why: `num_generations` is declared: the prompt is then paid for once.

        Fix: pass `num_generations` on to the engine, or take it out of the capabilities.
        """
        cls = self.cls
        if issubclass(cls, AsyncLLM):
            expect(cls.supports_num_generations(), "_num_generations_param_supported is False")
        (output,) = self.ask(self.shared(), self.inputs(1), num_generations=3)
        expect(len(output["generations"]) == 3, f"{len(output['generations'])} generations instead of 3")

    @rule(capability="logprobs", after="C05")
    def test_c76_logprobs_have_their_shape(self) -> None:
        """With `logprobs=True` an output has `logprobs[generation][position][candidate]`, each candidate
        with `token` and `logprob`.

        Why: `logprobs` is declared, and code that reads them must work with every backend.

        Fix: bring them into that shape, or take `logprobs` out of the capabilities.
        """
        problem = self._logprobs_problem(self.shared())
        expect(not problem, problem)

    @rule(capability="hidden_states")
    def test_c77_hidden_states_have_their_shape(self) -> None:
        """`get_last_hidden_states` gives one array `[num_tokens, hidden_size]` per input.

        Why: `hidden_states` is declared.

        Fix: remove the padding, return NumPy arrays of two axes; or take `hidden_states` out.
        """
        llm = self.shared()
        states = llm.get_last_hidden_states(self.inputs(2))
        expect(len(states) == 2, f"{len(states)} arrays for 2 inputs")
        shapes = [getattr(state, "shape", None) for state in states]
        good = all(shape is not None and len(shape) == 2 and min(shape) > 0 for shape in shapes)
        expect(good, f"the shapes are {shapes}")
        expect(shapes[0][1] == shapes[1][1], f"the hidden sizes differ: {shapes}")  # type: ignore[index]
        expect(shapes[0][0] != shapes[1][0], f"inputs of different lengths have as many tokens: {shapes}")  # type: ignore[index]
        expect(len(llm.get_last_hidden_states([])) == 0, "no inputs give hidden states")

    @rule(capability="offline_batch")
    def test_c81_an_offline_batch_is_submitted_once_and_collected(self) -> None:
        """An offline batch is submitted by the first call, keeps its jobs until it is done, and is
        collected by a later one, in order.

        Why: `offline_batch` is declared, and a batch submitted twice is paid for twice.

        Fix: submit where `jobs_ids` is `None`, raise `OfflineBatchNotFinishedError` with the ids until
        the jobs are done, and join results by custom id; or take `offline_batch` out.
        """
        llm = self.loaded()
        llm.use_offline_batch_generation = True
        submitted: tuple[str, ...] | None = None
        for _ in range(_MAX_POLLS):
            try:
                outputs = self.ask(llm)
                break
            except OfflineBatchNotFinishedError as error:
                expect(error.jobs_ids, "OfflineBatchNotFinishedError has no jobs_ids")
                expect(llm.jobs_ids == error.jobs_ids, f"jobs_ids is {llm.jobs_ids}, not {error.jobs_ids}")
                same = submitted in (None, error.jobs_ids)
                expect(same, f"another call made other jobs: {error.jobs_ids} after {submitted}")
                submitted = error.jobs_ids
        else:
            raise Broken(f"after {_MAX_POLLS} calls the batch is not finished")
        expect(submitted is not None, "the first call did not raise OfflineBatchNotFinishedError")
        expect(llm.jobs_ids is None, f"once collected, jobs_ids is {llm.jobs_ids}")
        expect(len(outputs) == len(self.texts), f"{len(outputs)} outputs for {len(self.texts)} inputs")
        self._answer(outputs)

    @rule(capability="seed", after="C05")
    def test_c82_the_same_seed_gives_the_same_generation(self) -> None:
        """`seed` is a generation parameter, and the same seed gives the same generation.

        Why: `seed` is declared, and results must be reproducible.

        Fix: pass `seed` on to the engine, and use no other source of randomness; or take `seed` out.
        """
        expect("seed" in self.cls.generation_parameters().parameters, "there is no parameter seed")
        llm = self.shared()
        sent = self._sent_for(llm, seed=11)
        if sent is not None:
            expect(sent != self._sent_for(llm, seed=12), "seed=11 and seed=12 send the same request")
        made = [self.ask(llm, self.inputs(1), num_generations=2, seed=11)[0]["generations"] for _ in range(2)]
        expect(made[0] == made[1], f"twice with seed=11: {made[0]} and {made[1]}")

    @rule(after=("C05", "C70"))
    def test_c83_what_works_is_declared(self) -> None:
        """Every capability that works is declared. Breaking this rule is a warning.

        Why: an input that needs an undeclared capability is refused, although the backend could do it.

        Fix: add the capability to `capabilities`.
        """
        llm = self.shared()
        found = [capability for capability in self._undeclared() if self._works(llm, capability)]
        if found:
            warn(f"{type(llm).__name__} can do what it does not declare: {', '.join(found)}")

    # Helpers

    def _undeclared(self) -> list[Capability]:
        return sorted(CAPABILITIES - self.capabilities)

    def _works(self, llm: LLM, capability: Capability) -> bool:
        names = type(llm).generation_parameters().parameters
        match capability:
            case "num_generations":
                return not isinstance(llm, AsyncLLM) or llm.makes_several
            case "tools" | "seed":
                return capability in names
            case "offline_batch":
                method = type(llm).offline_batch_generate
                return method not in (OfflineBatchMixin.offline_batch_generate, LLM.offline_batch_generate)
            case "images":
                return False  # an answer does not show whether the image was seen
        try:
            with _pretending(llm, capability):
                match capability:
                    case "logprobs":
                        return "logprobs" in names and not self._logprobs_problem(llm)
                    case "hidden_states":
                        return len(llm.get_last_hidden_states(self.inputs(1))) == 1
                    case "raw_prompt":
                        return not self.answers_are_scripted and any(
                            self.ask(llm, [self.texts[0]])[0]["generations"]
                        )
                    case "chat":
                        return not self.answers_are_scripted and self._reads_chats(llm)
                    case _:
                        self._held_to(FORMS[capability])
        except Exception:  # whatever it is, it does not work
            return False
        return True

    def _reads_chats(self, llm: LLM) -> bool:
        """Whether a chat is read, and not written out as Python or JSON writes it.

        Of a chat that is read it makes no difference in which order a message has its keys, nor whether its
        content is a text or a list with that text; a longer one makes a difference.
        """
        chats: list[Any] = [
            [{"role": "user", "content": self.texts[0]}],
            [{"content": [{"type": "text", "text": self.texts[0]}], "role": "user"}],
            [{"role": "user", "content": self.texts[2]}],
        ]
        outputs = [self.ask(llm, [chat])[0] for chat in chats]
        counts = [output["statistics"].get("input_tokens") for output in outputs]
        texts = [output["generations"] for output in outputs]
        first, same, longer = texts if counts[0] is None else counts
        return all(any(item) for item in texts) and first == same != longer

    def _answer(self, outputs: list[GenerateOutput]) -> list[GenerateOutput]:
        for output in outputs:
            answered = any(output["generations"]) or any(output.get("tool_calls") or ())
            expect(answered, f"there is no text: finish_reasons is {output.get('finish_reasons')}")
        return outputs

    def _logprobs_problem(self, llm: LLM) -> str:
        names = type(llm).generation_parameters().parameters
        if "logprobs" not in names:
            return "there is no parameter logprobs"
        more = {"top_logprobs": 2} if "top_logprobs" in names else {}
        (output,) = self.ask(llm, self.inputs(1), num_generations=2, logprobs=True, **more)
        logprobs = output.get("logprobs")
        if not isinstance(logprobs, list) or len(logprobs) != 2:
            return f"logprobs is {str(logprobs)[:200]} for 2 generations"
        for generation in logprobs:
            if not isinstance(generation, list) or not generation:
                return f"the logprobs of a generation are {str(generation)[:200]}"
            for candidates in generation:
                if not isinstance(candidates, list) or not candidates:
                    return f"the candidates of a position are {str(candidates)[:200]}"
                for item in candidates:
                    shape = isinstance(item, dict) and isinstance(item.get("token"), str)
                    number = item.get("logprob") if shape else None
                    if not isinstance(number, (int, float)) or math.isnan(number) or number > 1e-6:
                        return f"a candidate is {str(item)[:200]}, not a token and its logprob"
        return ""


@contextlib.contextmanager
def _pretending(llm: LLM, capability: Capability) -> Iterator[None]:
    """Give an LLM a capability that it does not declare."""
    llm.__dict__["capabilities"] = frozenset({*llm.capabilities, capability})
    try:
        yield
    finally:
        llm.__dict__.pop("capabilities")
