"""`LocalLLM`: what the backends of engines on this machine have alike."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from stillhouse import ConfigurationError, GenerateOutput, GenerationError, UnsupportedError
from stillhouse.local import (
    Answer,
    EngineWorker,
    Generation,
    JobQueue,
    LocalLLM,
    Prompts,
    Sampling,
    SamplingDefaults,
    TokenLLM,
    TokenTexts,
    bias_of,
    engine_failed,
    merged,
    seed_of,
    too_long,
    uniforms,
)
from stillhouse.outputs import prepare_output
from stillhouse.typing import Capability, FormattedInput

from .small_tokenizer import STRICT, SmallTokenizer

USER: Any = [{"role": "user", "content": "the river"}]
SYSTEM: Any = [{"role": "system", "content": "Be brief."}]
FORM = {"format": "choice", "schema": ["yes", "no"]}


class Echoing(LocalLLM):
    """Answers with its prompt."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "raw_prompt", "choice", "json_schema"})
    template: ClassVar[Any] = None

    @property
    def model_name(self) -> str:
        return "echoing"

    def load(self) -> None:
        super().load()
        tokenizer = SmallTokenizer() if self.template is None else SmallTokenizer(self.template)
        self.use_tokenizer(tokenizer, tokenizer.size, [2])

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        content = input[0] if isinstance(input, tuple) else input
        text = SmallTokenizer().decode(self.prompt_ids(content), skip_special_tokens=False)
        return prepare_output([text] * num_generations)


class Strict(Echoing):
    template: ClassVar[Any] = STRICT


class Base(Echoing):
    template: ClassVar[Any] = ""


def text_of(llm: LocalLLM, input: Any) -> Any:
    return llm.generate_outputs([input])[0]["generations"][0]


def test_a_chat_and_a_raw_prompt_are_told_apart() -> None:
    with Echoing() as llm:
        assert text_of(llm, USER) == "<|im_start|>user\nthe river<|im_end|>\n<|im_start|>assistant\n"
        assert text_of(llm, "the river") == "the river"


def test_with_magpie_the_model_writes_the_users_message() -> None:
    with Echoing(use_magpie_template=True, magpie_pre_query_template="qwen2") as llm:
        assert text_of(llm, []) == "<|im_start|>user\n"
        assert text_of(llm, SYSTEM) == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        assert text_of(llm, USER).endswith("<|im_start|>assistant\n")


def test_the_form_of_an_input_wins_over_that_of_the_llm() -> None:
    llm = Echoing(structured_output=FORM)
    own = {"format": "choice", "schema": ["maybe"]}
    assert llm.guide_of(USER).body == '"yes" | "no"'  # type: ignore[union-attr]
    assert llm.guide_of((USER, own)).body == '"maybe"'  # type: ignore[union-attr]
    assert Echoing().guide_of(USER) is None


def test_a_form_that_cannot_be_honoured_is_refused_where_it_is_first_known() -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    with pytest.raises(UnsupportedError, match="'not'"):
        Echoing(structured_output={"format": "json", "schema": {"not": {}}})
    # What the engine's library alone knows is known when it is loaded, or when the input is there.
    nowhere = {"format": "json", "schema": {"$ref": "#/$defs/nowhere"}}
    with pytest.raises(UnsupportedError, match="cannot honour"), Echoing(structured_output=nowhere):
        pass
    with Echoing() as llm, pytest.raises(UnsupportedError, match="cannot honour"):
        llm.generate_outputs([(USER, nowhere)])


def test_one_bad_row_fails_by_itself() -> None:
    with Strict() as llm:
        rows: Any = [USER, [*SYSTEM, *USER], [*USER, *USER], "raw"]
        outputs = [output for _, output in llm.iter_outputs(rows, on_error="yield")]
    assert [isinstance(output, GenerationError) for output in outputs] == [False, True, True, False]
    assert "role system" in str(outputs[1])
    assert "alternate" in str(outputs[2])


def test_without_a_chat_template_chats_stop_the_run_and_raw_prompts_do_not() -> None:
    with Base() as llm:
        assert text_of(llm, "the river") == "the river"
        with pytest.raises(UnsupportedError, match="no chat template") as raised:
            llm.check_input(USER)
        assert raised.value.stops_run


def test_what_is_not_loaded_says_so() -> None:
    llm = Echoing()
    for ask in (lambda: llm.prompts, lambda: llm.guides):
        with pytest.raises(ConfigurationError, match="load"):
            ask()


def test_inputs_are_ordered_by_their_length() -> None:
    llm = Echoing()
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "four"}]}]
    assert [llm.batch_key(input) for input in ("abc", USER, [*SYSTEM, *USER], (USER, FORM), parts)] == [
        3,
        9,
        18,
        9,
        4,
    ]


def output(text: str) -> GenerateOutput:
    return prepare_output([text], output_tokens=[3], finish_reasons=["stop"])


def test_generations_are_one_output_or_the_first_error_with_those_that_were_finished() -> None:
    whole = merged([output("a"), output("b")])
    assert whole["generations"] == ["a", "b"]
    assert whole["statistics"]["output_tokens"] == [3, 3]
    error = too_long(900, 512, "n_ctx")
    with pytest.raises(GenerationError, match="900 tokens") as raised:
        merged([output("a"), error, engine_failed("late")])
    assert raised.value.kind == "context_length"
    assert "n_ctx" in raised.value.hint
    assert [one["generations"] for one in raised.value.outputs] == [["a"]]
    with pytest.raises(KeyboardInterrupt):
        merged([output("a"), KeyboardInterrupt()])


def test_an_engines_own_words_are_kept_and_bounded() -> None:
    assert "MemoryError" in engine_failed(MemoryError()).message
    assert "no room" in engine_failed(RuntimeError("no room")).message
    assert len(engine_failed("x" * 100_000).message) < 600


def test_each_generation_has_a_source_of_chance_of_its_own() -> None:
    def numbers(seed: int | None, generation: int = 0) -> list[float]:
        chance = uniforms(seed, generation)
        return [chance.random() for _ in range(5)]

    assert numbers(7) == numbers(7)
    assert numbers(7, 1) == numbers(8)
    assert numbers(7) != numbers(7, 1)
    assert numbers(None) != numbers(None)
    assert all(0 <= number < 1 for number in numbers(3))
    assert 0 <= seed_of(2**63, 5) < 2**32 - 1


def test_settings_say_what_they_amount_to() -> None:
    assert Sampling(temperature=0).is_greedy
    assert Sampling(top_k=1).is_greedy
    assert not Sampling().is_greedy
    assert Sampling().is_plain
    for changed in (
        {"frequency_penalty": 1},
        {"presence_penalty": 1},
        {"repetition_penalty": 2},
        {"bias": {1: 1}},
    ):
        assert not Sampling(**changed).is_plain  # type: ignore[arg-type]


def test_a_bias_is_by_number_or_by_text() -> None:
    tokenizer = SmallTokenizer()
    river = tokenizer.encode("river", add_special_tokens=False)
    assert bias_of({5: -100, "7": 1, "river": 2}, tokenizer, 400) == {
        5: -100.0,
        7: 1.0,
        **dict.fromkeys(river, 2.0),
    }
    assert bias_of(None, tokenizer, 400) == {}
    for unknown in (400, "400", -1, "-1"):
        with pytest.raises(ConfigurationError, match="token"):
            bias_of({unknown: 1}, tokenizer, 400)


def test_a_bias_is_a_number_that_32_bits_can_hold() -> None:
    given: Any = {1: float("inf"), 2: 1e300, 3: float("-inf"), 4: 3}
    assert bias_of(given, SmallTokenizer(), 400) == {1: 1e30, 2: 1e30, 3: float("-inf"), 4: 3}
    with pytest.raises(ConfigurationError, match="logit_bias of 5 is no number"):
        bias_of({5: float("nan")}, SmallTokenizer(), 400)


def test_what_a_model_says_of_sampling_is_taken_where_the_call_leaves_it_open() -> None:
    tokenizer = SmallTokenizer()

    def made(config: dict[str, Any], **given: Any) -> Sampling:
        return SamplingDefaults.of(config).sampling(given, tokenizer, 400)

    assert made({}).temperature == 0
    assert made({}, top_p=0.5) == Sampling(temperature=1.0, top_p=0.5)
    assert made({}, seed=1, temperature=None).is_greedy
    drawn = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1}
    assert made(drawn) == Sampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.1)
    assert made(drawn, temperature=0, top_k=0) == Sampling(temperature=0, top_k=0, top_p=0.95, min_p=0.1)
    # Settings without sampling are leftovers of the model's training.
    assert made({**drawn, "do_sample": False}).is_greedy
    assert made({"repetition_penalty": 1.1}).repetition_penalty == 1.1
    odd = {"do_sample": "yes", "temperature": "hot", "top_k": 1.5, "top_p": True, "max_new_tokens": None}
    assert SamplingDefaults.of(odd) == SamplingDefaults()


class Spelling:
    """An engine that generates the tokens of a fixed text, over and over, and ends when the answer does."""

    tokenizer: Any = None
    vocabulary_size = 400
    context_length = 64
    eos = frozenset({2})
    defaults = SamplingDefaults(max_new_tokens=9)
    says = "the river and the rain, and the river"

    def serve(self, queue: JobQueue[Generation, GenerateOutput]) -> None:
        texts = TokenTexts(self.tokenizer)
        tokens = self.tokenizer.encode(self.says, add_special_tokens=False)
        for job in iter(lambda: (queue.take(1) or [None])[0], None):
            answer = Answer(
                job.request, Prompts(self.tokenizer), self.tokenizer, texts, self.eos, job.on_piece
            )
            reason = None
            for token in [*tokens, 2]:
                report = (
                    None if job.request.candidates is None else [(token, -0.5), (3, float("-inf")), (4, -2.0)]
                )
                reason = answer.add(token, report)
                if reason:
                    break
            job.finish(answer.output(reason or "length", cached=3))


class SpellingLLM(TokenLLM):
    @property
    def model_name(self) -> str:
        return "spelling"

    def load(self) -> None:
        super().load()
        engine = Spelling()
        engine.tokenizer = SmallTokenizer()
        self.use_engine(EngineWorker(lambda: engine, Spelling.serve, "spelling"), engine)

    def unload(self) -> None:
        self.release_engine()
        super().unload()


def test_an_answer_ends_where_its_limit_its_stop_text_or_the_model_says() -> None:
    with SpellingLLM() as llm:

        def ask(**parameters: Any) -> tuple[Any, ...]:
            output = llm.generate_outputs([USER], **parameters)[0]
            return (
                output["generations"][0],
                output["finish_reasons"][0],
                output["statistics"]["output_tokens"][0],
            )

        whole = len(SmallTokenizer().encode(Spelling.says, add_special_tokens=False))
        assert ask(max_new_tokens=50) == (Spelling.says, "stop", whole + 1)
        assert ask()[1:] == ("length", 9)
        assert ask(max_new_tokens=1)[1:] == ("length", 1)
        assert ask(max_new_tokens=50, stop=["rain", "and"])[:2] == ("the river ", "stop")
        assert ask(max_new_tokens=50, stop="the river")[:2] == (None, "stop")
        output = llm.generate_outputs([USER], num_generations=2, stop=" and", logprobs=True, top_logprobs=3)[
            0
        ]
        assert output["generations"] == ["the river", "the river"]
        assert "".join(position[0]["token"] for position in output["logprobs"][0]) == "the river"
        assert [candidate["logprob"] for candidate in output["logprobs"][0][0]] == [-0.5, -2.0]
        assert output["statistics"]["cached_tokens"] == [3, 3]


@pytest.mark.parametrize(
    ("says", "parameters", "pieces"),
    [
        ("the river and", {}, ["the", " river", " and"]),
        ("the river and the rain", {"stop": " and the river"}, ["the", " river", " and the rain"]),
        ("the river and the rain", {"stop": "and the"}, ["the", " river", " "]),
        ("the river", {"stop": "the"}, []),
        ("a🙂b", {}, ["a", "🙂", "b"]),
        ("🙂🙂", {"max_new_tokens": 5}, ["🙂", "\ufffd"]),
    ],
)
def test_a_stream_gives_what_can_no_longer_change(
    monkeypatch: pytest.MonkeyPatch, says: str, parameters: dict[str, Any], pieces: list[str]
) -> None:
    monkeypatch.setattr(Spelling, "says", says)
    parameters = {"max_new_tokens": 30, **parameters}
    with SpellingLLM() as llm:
        *given, output = llm.stream(USER, **parameters)
        assert given == pieces
        assert output == llm.generate_outputs([USER], **parameters)[0]


def test_only_the_one_generation_of_a_stream_is_streamed() -> None:
    """A call that asks the LLM for more within a stream, such as a backend that wraps it, gets no pieces."""

    class TwiceLLM(SpellingLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            await super().agenerate(input, num_generations=2)
            first = await super().agenerate(input)
            assert first == await super().agenerate(input)
            return first

    with TwiceLLM() as llm:
        *pieces, output = llm.stream(USER)
    assert "".join(pieces) == output["generations"][0]  # type: ignore[arg-type, index]
    assert len(pieces) > 1


def test_a_prompt_that_leaves_no_room_for_a_token_is_that_rows_error() -> None:
    with SpellingLLM() as llm:
        outputs = [one for _, one in llm.iter_outputs(["the rain", "the rain " * 60, ""], on_error="yield")]
    assert not isinstance(outputs[0], GenerationError)
    assert [outputs[1].kind, outputs[2].kind] == ["context_length", "invalid_request"]  # type: ignore[union-attr]
    assert "room for 63" in str(outputs[1])


def test_an_engine_that_was_released_is_not_asked_any_more() -> None:
    llm = SpellingLLM()
    with llm:
        worker = llm.opened()[1]
    assert not any(thread.is_alive() for thread in worker._threads)
    with pytest.raises(ConfigurationError, match="load"):
        llm.opened()
