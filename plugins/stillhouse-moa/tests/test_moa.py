"""Proposals, rounds, what is missing, what is counted, and settings."""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

import stillhouse
from stillhouse import (
    LLM,
    AsyncLLM,
    Capability,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    UnsupportedError,
    prepare_output,
)
from stillhouse.inputs import split_input
from stillhouse_moa import MixtureOfAgentsLLM
from stillhouse_moa.failures import Missing, failure_of_all
from stillhouse_moa.prompt import with_proposals
from stillhouse_moa.usage import Usage

Say = Callable[..., Any]


class Asked:
    """What the members were asked, and what they say: by name, a function, an output, an error or a text."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def answer(self, name: str, input: FormattedInput, count: int, **arguments: Any) -> Any:
        with self._lock:
            self.calls.append((name, input, {"num_generations": count, **arguments}))
        said = self.says.get(name, f"from {name}")
        if callable(said):
            said = said(input)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, dict) or hasattr(said, "__await__"):
            return said
        return prepare_output([said] * count, [10], [2], finish_reasons=["stop"] * count)

    def of(self, name: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(input, arguments) for who, input, arguments in self.calls if who == name]


ASKED = Asked()


class MemberLLM(AsyncLLM):
    """An asynchronous member."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "json_schema", "num_generations"})

    name: str
    api_key: SecretStr | None = None

    @property
    def model_name(self) -> str:
        return self.name

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> GenerateOutput:
        said = ASKED.answer(self.name, input, num_generations, temperature=temperature, seed=seed)
        return await said if hasattr(said, "__await__") else said  # type: ignore[no-any-return]


class ListLLM(LLM):
    """A member that takes a list of inputs, one call at a time."""

    name: str

    @property
    def model_name(self) -> str:
        return self.name

    def generate(self, inputs: list[FormattedInput], num_generations: int = 1) -> list[GenerateOutput]:
        return [ASKED.answer(self.name, input, num_generations) for input in inputs]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    registry = stillhouse.Registry(entry_points=())
    for name, cls in (("member", MemberLLM), ("list", ListLLM), ("moa", MixtureOfAgentsLLM)):
        registry.register(name, cls)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
    ASKED.__init__()  # type: ignore[misc]
    return ASKED


def mixture(*proposers: str | LLM, **fields: Any) -> MixtureOfAgentsLLM:
    """A mixture of members with these names, and an aggregator `last`; not loaded."""
    members = [MemberLLM(name=item) if isinstance(item, str) else item for item in proposers]
    return MixtureOfAgentsLLM(
        **{"aggregator_llm": MemberLLM(name="last"), "proposers_llms": members, **fields}
    )


def chat(text: str = "Name a river.") -> Any:
    return [{"role": "user", "content": text}]


def system_of(input: Any) -> str:
    """The text that a member was shown as the system message."""
    messages = split_input(input)[0]
    assert not isinstance(messages, str)
    return str(messages[0]["content"]) if messages[0]["role"] == "system" else ""


def failed(llm: LLM, *inputs: Any, **arguments: Any) -> GenerationError:
    with pytest.raises(GenerationError) as raised:
        llm.generate_outputs(list(inputs) or [chat()], **arguments)
    return raised.value


# Proposals


def test_the_aggregator_sees_the_proposals_and_makes_all_generations(asked: Asked) -> None:
    question = [{"role": "system", "content": "Be brief."}, *chat()]
    before = [dict(message) for message in question]
    with mixture("a", "b") as llm:
        (output,) = llm.generate_outputs([question], num_generations=3)
    assert output["generations"] == ["from last"] * 3
    assert output["finish_reasons"] == ["stop"] * 3
    ((seen, arguments),) = asked.of("last")
    assert arguments["num_generations"] == 3
    assert system_of(seen).startswith("Be brief.\n\n")
    assert "Drafts:\n\n1. from a\n\n2. from b" in system_of(seen)
    assert [arguments["num_generations"] for _, arguments in asked.of("a")] == [1]
    assert asked.of("a")[0][0] == question == before
    assert "missing_proposals" not in output


def test_in_further_rounds_proposers_see_each_other(asked: Asked) -> None:
    asked.says["a"] = lambda seen: "again" if "Drafts:" in system_of(seen) else "first"
    with mixture("a", "b", rounds=2) as llm:
        (output,) = llm.generate_outputs([chat()])
    assert [len(asked.of(name)) for name in ("a", "b", "last")] == [2, 2, 1]
    assert "1. first\n\n2. from b" in system_of(asked.of("b")[1][0])
    assert "1. again\n\n2. from b" in system_of(asked.of("last")[0][0])
    assert output["statistics"] == {"input_tokens": [50], "output_tokens": [10]}


@pytest.mark.parametrize("content", [None, "", [{"type": "text", "text": "Be brief."}]])
def test_a_system_message_of_any_shape_is_extended(content: Any) -> None:
    given: Any = [{"role": "system", "content": content}, *chat()]
    first, *rest = with_proposals(given, ["a"])
    assert rest == chat()
    text = first["content"] if isinstance(first["content"], str) else first["content"][-1]["text"]
    assert text.endswith("Drafts:\n\n1. a")
    assert given[0]["content"] == content


def test_proposers_answer_at_the_same_time(asked: Asked) -> None:
    # Each member has a loop of its own, so they meet in threads.
    meeting = threading.Barrier(2, timeout=10)

    async def meet() -> GenerateOutput:
        await asyncio.to_thread(meeting.wait)
        return prepare_output(["here"], finish_reasons=["stop"])

    asked.says |= {"a": lambda _: meet(), "b": lambda _: meet()}
    with mixture("a", "b") as llm:
        llm.generate_outputs([chat()])
    assert "1. here\n\n2. here" in system_of(asked.of("last")[0][0])


# What is missing

REFUSED = GenerationError("the key is wrong", kind="authentication")
BROKEN = GenerationError("it broke", kind="server")
NOTHING = prepare_output([None], [10], [3], finish_reasons=["length"], reasoning=["Hm."])
CALLING: Any = prepare_output(
    ["The weather is fine."], finish_reasons=["tool_calls"], tool_calls=[[{"function": {"name": "weather"}}]]
)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (BROKEN, "server"),
        (REFUSED, "authentication"),
        (RuntimeError("a fault"), "unknown"),
        (NOTHING, "truncated"),
        (prepare_output([None], finish_reasons=["refusal"]), "content_filter"),
        (prepare_output([" \n"], finish_reasons=["stop"]), "unknown"),
        (CALLING, "unknown"),
    ],
)
def test_a_missing_proposal_leaves_no_gap_and_is_noted(asked: Asked, said: Any, kind: str) -> None:
    asked.says["b"] = said
    with mixture("a", "b", "c") as llm:
        (output,) = llm.generate_outputs([chat()], num_generations=2)
    system = system_of(asked.of("last")[0][0])
    assert system.endswith("Drafts:\n\n1. from a\n\n2. from c")
    first, second = output["missing_proposals"]  # type: ignore[typeddict-item]
    ((note,), (same,)) = first, second
    assert note == same
    assert (note["member"], note["model_name"], note["round"], note["kind"]) == (
        "proposers_llms.1",
        "b",
        1,
        kind,
    )


def test_a_row_without_proposals_fails_with_what_every_member_said(asked: Asked) -> None:
    asked.says |= {"a": NOTHING, "b": BROKEN}
    with mixture("a", "b") as llm:
        error = failed(llm)
        assert (error.kind, error.stops_run) == ("server", False)
        assert "proposers_llms.0 (a)" in error.message
        assert "proposers_llms.1 (b): it broke" in error.message
        results = list(llm.iter_outputs([chat()], on_error="yield"))
    assert asked.of("last") == []
    ((_, result),) = results
    assert isinstance(result, GenerationError)
    assert result.outputs[0] is not None
    assert result.outputs[0]["statistics"] == {"input_tokens": [10], "output_tokens": [3]}


@pytest.mark.parametrize(
    ("says", "least", "stops"),
    [
        ({"a": REFUSED, "b": REFUSED}, 1, True),
        ({"a": REFUSED, "b": BROKEN}, 1, False),
        ({"a": REFUSED}, 2, True),
        ({"a": BROKEN}, 2, False),
    ],
)
def test_the_run_stops_where_too_few_proposers_are_left(
    asked: Asked, says: dict[str, Any], least: int, stops: bool
) -> None:
    asked.says |= says
    with mixture("a", "b", min_proposals=least) as llm:
        error = failed(llm)
    assert error.stops_run is stops
    assert error.kind == ("authentication" if stops else "server")


def test_a_refused_proposer_is_asked_once(asked: Asked) -> None:
    asked.says["a"] = REFUSED
    with mixture("a", "b", max_concurrency=1) as llm:
        outputs = llm.generate_outputs([chat()] * 4)
        assert len(asked.of("a")) == 1
        assert all("missing_proposals" in output for output in outputs)
    del asked.says["a"]
    with llm:
        (output,) = llm.generate_outputs([chat()])
    assert "missing_proposals" not in output


def test_the_aggregators_error_is_that_of_the_row(asked: Asked) -> None:
    asked.says["last"] = GenerationError("no room", kind="context_length", hint="ask for less")
    with mixture("a") as llm:
        ((_, error),) = llm.iter_outputs([chat()], on_error="yield")
    assert isinstance(error, GenerationError)
    assert (error.kind, error.hint, error.message) == (
        "context_length", "ask for less", "aggregator_llm (last): no room",
    )  # fmt: skip
    assert error.outputs[0] is not None
    assert error.outputs[0]["statistics"] == {"input_tokens": [10], "output_tokens": [2]}


# Time


def test_a_member_that_never_answers_is_left_out(asked: Asked) -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    asked.says["b"] = lambda _: hang()
    with mixture("a", "b", member_timeout=0.2) as llm:
        (output,) = llm.generate_outputs([chat()])
        assert ended == ["cancelled"]
        (note,) = output["missing_proposals"][0]  # type: ignore[typeddict-item]
        assert (note["kind"], note["message"]) == ("timeout", "no answer within 0.2 s")
        asked.says["last"] = lambda _: hang()
        assert failed(llm).kind == "timeout"


def test_a_synchronous_member_is_asked_in_a_thread_of_its_own(asked: Asked) -> None:
    threads: set[str] = set()
    asked.says["slow"] = lambda _: threads.add(threading.current_thread().name) or "slowly"
    one = ListLLM(name="slow")
    with mixture(one, "b", one, aggregator_llm=one) as llm:
        outputs = llm.generate_outputs([chat(str(number)) for number in range(5)])
    assert [output["generations"] for output in outputs] == [["slowly"]] * 5
    assert len(threads) == 1
    assert outputs[0]["statistics"] == {"input_tokens": [40], "output_tokens": [8]}


def test_a_synchronous_member_works_in_the_context_of_its_row(asked: Asked) -> None:
    """Hooks, such as the one that stores what members answered, tell rows apart by it."""
    row: ContextVar[str] = ContextVar("row", default="none")
    asked.says["slow"] = lambda _: f"in row {row.get()}"
    with mixture(ListLLM(name="slow")) as llm:
        row.set("7")
        llm.generate_outputs([chat()])
    assert system_of(asked.of("last")[0][0]).endswith("1. in row 7")


def test_a_queue_at_a_synchronous_member_is_no_timeout_and_a_hanging_one_is(asked: Asked) -> None:
    turns, hold = threading.Semaphore(0), threading.Event()
    asked.says["slow"] = lambda _: "slowly" if turns.acquire(timeout=10) else "late"
    asked.says["b"] = lambda _: turns.release() or "from b"
    with mixture(ListLLM(name="slow"), "b", member_timeout=5) as llm:
        outputs = llm.generate_outputs([chat(str(number)) for number in range(8)])
        assert not any("missing_proposals" in output for output in outputs)
        llm.member_timeout = 0.2
        asked.says["slow"] = lambda _: "held" if hold.wait(10) else "late"
        outputs = llm.generate_outputs([chat(), chat()])
        assert all(output["missing_proposals"][0][0]["kind"] == "timeout" for output in outputs)  # type: ignore[typeddict-item]
        hold.set()


# Streams


class PiecesLLM(MemberLLM):
    """An asynchronous member that streams: a word, and the rest when it is let go."""

    async def agenerate_streamed(
        self, input: FormattedInput, on_piece: Any, **arguments: Any
    ) -> GenerateOutput:
        output = await self.agenerate(input, **arguments)
        text = output["generations"][0] or ""
        on_piece(text[:5])
        assert await asyncio.to_thread(GOES_ON.wait, 10)
        on_piece(text[5:])
        return output


class ListPiecesLLM(ListLLM):
    """A member that is asked in a thread, and streams likewise."""

    def generate_streamed(self, input: FormattedInput, on_piece: Any, **arguments: Any) -> GenerateOutput:
        output = self.generate([input])[0]
        text = output["generations"][0] or ""
        on_piece(text[:5])
        assert GOES_ON.wait(10)
        on_piece(text[5:])
        return output


GOES_ON = threading.Event()


@pytest.mark.parametrize("cls", [PiecesLLM, ListPiecesLLM])
def test_the_aggregators_answer_is_streamed(cls: type[Any], asked: Asked) -> None:
    """The first piece comes before the answer is whole, and the proposers' texts are not among them."""
    GOES_ON.clear()
    with mixture("a", PiecesLLM(name="b"), aggregator_llm=cls(name="last")) as llm:
        items = llm.stream(chat())
        assert next(items) == "from "
        GOES_ON.set()
        *pieces, output = items
        assert pieces == ["last"]
        assert not isinstance(output, str)
        assert output["generations"] == ["from last"]
        assert output["statistics"] == {"input_tokens": [30], "output_tokens": [6]}
        assert [len(asked.of(name)) for name in ("a", "b", "last")] == [1, 1, 1]
        asked.says["last"] = GenerationError("no room", kind="server")
        with pytest.raises(GenerationError, match="no room"):
            list(llm.stream(chat()))


# What is counted


def test_usage_is_counted_per_member_and_in_all(asked: Asked) -> None:
    asked.says["a"] = {
        **prepare_output(["x"], [100], [20], finish_reasons=["stop"]),
        "statistics": {"input_tokens": [100], "output_tokens": [20], "cached_tokens": [64], "cost": [0.5]},
    }
    asked.says["last"] = prepare_output(["x", "y"], [30], [4, 5], finish_reasons=["stop"] * 2)
    with mixture("a", "b", rounds=2) as llm:
        (output,) = llm.generate_outputs([chat()], num_generations=2)
    assert output["statistics"] == {"input_tokens": [250], "output_tokens": [53], "cached_tokens": [128]}
    usage, none = output["member_usage"]  # type: ignore[typeddict-item]
    assert none is None
    assert {entry["member"]: entry["input_tokens"] for entry in usage} == {
        "proposers_llms.0": 200, "proposers_llms.1": 20, "aggregator_llm": 30,
    }  # fmt: skip
    assert usage[0] == {
        "member": "proposers_llms.0", "llm": "member", "model_name": "a", "calls": 2,
        "input_tokens": 200, "output_tokens": 40, "cached_tokens": 128,
    }  # fmt: skip


@pytest.mark.parametrize("late", ["a", "b"])
def test_members_are_listed_in_their_order_whichever_ends_first(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """One proposer answers only when the call of the other one was counted."""
    counted, ended, add = threading.Event(), list[str](), Usage.add

    def add_and_tell(self: Usage, member: Any, result: Any) -> None:
        add(self, member, result)
        ended.append(member.llm.name)
        counted.set()

    monkeypatch.setattr(Usage, "add", add_and_tell)

    async def say(name: str) -> Any:
        if name == late:
            assert await asyncio.to_thread(counted.wait, 10)
        own = {
            "a": {"output_tokens": [2], "input_tokens": [1]},
            "b": {"input_tokens": [3], "output_tokens": [4]},
        }
        return {**prepare_output([name], finish_reasons=["stop"]), "statistics": own[name]}

    asked.says |= {name: lambda _, name=name: say(name) for name in ("a", "b")}
    with mixture("a", "b") as llm:
        (output,) = llm.generate_outputs([chat()])
    assert ended == [*sorted("ab", key=late.__eq__), "last"]
    members = [entry["member"] for entry in output["member_usage"][0]]  # type: ignore[typeddict-item]
    assert members == ["proposers_llms.0", "proposers_llms.1", "aggregator_llm"]
    assert list(output["statistics"].items()) == [("output_tokens", [8]), ("input_tokens", [14])]


def test_a_total_that_a_member_does_not_tell_is_unknown(asked: Asked) -> None:
    asked.says["a"] = prepare_output(["x"], None, [2], finish_reasons=["stop"])
    with mixture("a", "b") as llm:
        (output,) = llm.generate_outputs([chat()])
    assert output["statistics"] == {"output_tokens": [6]}


# Parameters


def test_each_member_has_its_own_generation_parameters(asked: Asked) -> None:
    llm = mixture(MemberLLM(name="a", generation_kwargs={"temperature": 0.1}), "b")
    llm.set_runtime_parameters(
        {"proposers_llms": {"1": {"generation_kwargs": {"temperature": 0.2}}},
         "aggregator_llm": {"generation_kwargs": {"temperature": 0.3}}}
    )  # fmt: skip
    assert llm.get_generation_kwargs() == {
        "aggregator_llm": {"temperature": 0.3}, "proposers_llms": [{"temperature": 0.1}, {"temperature": 0.2}],
    }  # fmt: skip
    with llm:
        llm.generate_outputs([chat()])
        llm.generate_outputs(
            [chat()], aggregator_llm={"temperature": 0.9}, proposers_llms=[{}, {"temperature": 0.8}]
        )
    seen = {name: [given["temperature"] for _, given in asked.of(name)] for name in ("a", "b", "last")}
    assert seen == {"a": [0.1, 0.1], "b": [0.2, 0.8], "last": [0.3, 0.9]}


def test_every_call_has_a_seed_of_its_own(asked: Asked) -> None:
    with mixture("a", "a", rounds=2) as llm:
        llm.generate_outputs([chat()], seed=7, proposers_llms=[{}, {"seed": 1}])
    assert sorted(given["seed"] for _, given in asked.of("a")) == [1, 1, 8, 10]
    assert [given["seed"] for _, given in asked.of("last")] == [7]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"aggregator_llm": {"temperatur": 1}}, "did you mean 'temperature'"),
        ({"proposers_llms": [{}]}, "1 dicts of generation parameters, but there are 2"),
        ({"proposers_llms": [{}, {"temperature": "hot"}]}, "temperature"),
        ({"seed": 1}, "proposers_llms.1 (ListLLM) does not support seeds"),
    ],
)
def test_a_wrong_parameter_of_a_member_is_refused(arguments: dict[str, Any], said: str) -> None:
    with mixture("a", ListLLM(name="b")) as llm, pytest.raises(ConfigurationError) as raised:
        llm.generate_outputs([chat()], **arguments)
    assert said in str(raised.value)


def test_the_form_is_the_aggregators(asked: Asked) -> None:
    form: Any = {"format": "json", "schema": {"type": "object"}}
    other: Any = {"format": "json", "schema": {"type": "object", "title": "other"}}
    with mixture("a", structured_output=other) as llm:
        llm.generate_outputs([chat(), (chat(), form)])
    assert all(isinstance(input, list) for input, _ in asked.of("a"))
    assert sorted(str(split_input(input)[1]) for input, _ in asked.of("last")) == sorted(
        map(str, (form, other))
    )


def test_what_the_members_cannot_take_is_refused_before_anything_is_sent(asked: Asked) -> None:
    image: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}]
    with mixture("a") as llm:
        with pytest.raises(UnsupportedError, match="MemberLLM lacks the capability images"):
            llm.generate_outputs([image])
        with pytest.raises(UnsupportedError, match="MemberLLM lacks the capability regex"):
            llm.generate_outputs([(chat(), {"format": "regex", "schema": "a"})])
        with pytest.raises(UnsupportedError):
            llm.generate_outputs(["a raw prompt"])
    with pytest.raises(UnsupportedError), mixture("a", structured_output={"format": "regex", "schema": "a"}):
        pass
    assert asked.calls == []


# Settings


def test_settings_come_back_without_secrets(tmp_path: Path) -> None:
    llm = mixture(MemberLLM(name="a", api_key="sk-secret"), "b", rounds=2, min_proposals=2)
    llm.save(tmp_path / "moa.yaml")
    assert "sk-secret" not in (tmp_path / "moa.yaml").read_text()
    again = LLM.from_file(tmp_path / "moa.yaml")
    assert isinstance(again, MixtureOfAgentsLLM)
    again.proposers_llms[0].api_key = SecretStr("sk-secret")  # type: ignore[attr-defined]
    assert again == llm == pickle.loads(pickle.dumps(llm))
    assert llm.model_name == "moa-last-a-b"
    assert llm.is_composite


def test_a_secret_of_a_member_is_masked(asked: Asked) -> None:
    asked.says["a"] = GenerationError("bad key sk-secret-of-a", kind="authentication")
    with mixture(MemberLLM(name="a", api_key="sk-secret-of-a")) as llm:
        error = failed(llm)
    assert "sk-secret" not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("fields", [{"min_proposals": 3}, {"rounds": 0}, {"proposers_llms": []}])
def test_impossible_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"min_proposals|rounds|proposers"):
        mixture("a", "b", **fields)


def test_members_are_loaded_and_unloaded_unless_they_were_before() -> None:
    mine, llm = MemberLLM(name="a"), mixture("b")
    llm.proposers_llms = [mine, *llm.proposers_llms]
    with mine:
        for _ in range(2):
            with llm:
                assert all(member.is_loaded for member in (*llm.proposers_llms, llm.aggregator_llm))
            assert [member.is_loaded for member in (*llm.proposers_llms, llm.aggregator_llm)] == [
                True,
                False,
                False,
            ]


def test_a_member_that_cannot_be_loaded_leaves_nothing_loaded() -> None:
    llm = mixture("a", MemberLLM(name="b", use_offline_batch_generation=True))
    with pytest.raises(ConfigurationError, match=r"proposers_llms\.1 uses offline batches"):
        llm.load()
    assert not any(member.is_loaded for member in (llm, *llm.proposers_llms, llm.aggregator_llm))


def test_the_attempts_of_a_row_are_a_number() -> None:
    missing: Any = [Missing("a", 1, GenerationError("refused here", attempts=0))]  # type: ignore[arg-type]
    error = failure_of_all(missing, 2, 2, ())
    assert type(error.attempts) is int
