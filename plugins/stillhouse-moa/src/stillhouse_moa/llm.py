"""`MixtureOfAgentsLLM`: several models propose answers, and one writes the answer from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator

from stillhouse import (
    LLM,
    AsyncLLM,
    Capability,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    RuntimeParameter,
    UnsupportedError,
)
from stillhouse.inputs import split_input
from stillhouse.structured import StructuredOutputMixin
from stillhouse_moa.failures import Missing, failure_of_all
from stillhouse_moa.members import Member, Worker
from stillhouse_moa.prompt import with_proposals
from stillhouse_moa.usage import Usage

__all__ = ["MixtureOfAgentsLLM"]


@dataclass
class _Row:
    """What is known of a row while it is worked on."""

    usage: Usage
    missing: list[Missing] = field(default_factory=list)


class MixtureOfAgentsLLM(AsyncLLM, StructuredOutputMixin):
    """Several models propose an answer, in one or more rounds, and another one writes the answer from them.

    In each round, every proposer answers the input once. From the second round on, it sees the answers of
    the previous round. The aggregator sees the answers of the last round, and writes all generations from
    the same proposals.

    A proposer that fails, or returns no text, is left out of the row and listed in `missing_proposals`. The
    row fails if fewer than `min_proposals` proposers answer in a round.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "choice", "images", "json_schema", "num_generations", "regex", "seed"}
    )
    """What a mixture can hand on. An input that the aggregator, or too many proposers, cannot take is
    refused as the member refuses it."""

    aggregator_llm: LLM = Field(description="The LLM that writes the answer from the proposals.")
    proposers_llms: list[LLM] = Field(min_length=1, description="The LLMs that propose answers.")
    rounds: RuntimeParameter[int] = Field(
        default=1, ge=1, description="How many times each proposer answers."
    )
    min_proposals: RuntimeParameter[int] = Field(
        default=1, ge=1, description="Number of proposers that must answer in each round, or the row fails."
    )
    member_timeout: RuntimeParameter[float] | None = Field(
        default=300.0,
        gt=0,
        description="Time limit in seconds for one call of a member, including its own retries and waiting "
        "for a quota; None leaves it to the member.",
    )

    _aggregator: Member = PrivateAttr()
    _proposers: list[Member] = PrivateAttr(default_factory=list)
    _workers: dict[int, Worker] = PrivateAttr(default_factory=dict)
    _loaded_here: list[LLM] = PrivateAttr(default_factory=list)

    @model_validator(mode="after")
    def _enough_proposers(self) -> Self:
        if (self.min_proposals or 1) > len(self.proposers_llms):
            raise ConfigurationError(
                f"min_proposals is {self.min_proposals}, but there are {len(self.proposers_llms)} proposers"
            )
        return self

    @property
    def model_name(self) -> str:
        """The names of the members' models, the aggregator's first."""
        return "-".join(["moa", *(llm.model_name for _, llm in self._members())])

    def _members(self) -> Iterator[tuple[str, LLM]]:
        yield "aggregator_llm", self.aggregator_llm
        for position, llm in enumerate(self.proposers_llms):
            yield f"proposers_llms.{position}", llm

    # Loading

    def load(self) -> None:
        super().load()
        members: list[Member] = []
        for name, llm in self._members():
            if llm.use_offline_batch_generation:
                raise ConfigurationError(
                    f"{name} uses offline batches, but a mixture requires each answer at once",
                    hint="set its use_offline_batch_generation to False",
                )
            if not llm.is_loaded:
                self._loaded_here.append(llm)
                llm.load()
            if not isinstance(llm, AsyncLLM) and id(llm) not in self._workers:
                self._workers[id(llm)] = Worker(name)
            members.append(Member(name, llm, self._workers.get(id(llm))))
        self._aggregator, *self._proposers = members
        self.check_arguments(self.get_generation_kwargs())
        if self.structured_output is not None:
            question: Any = [{"role": "user", "content": "…"}]
            self.aggregator_llm.check_input((question, self.structured_output))

    def unload(self) -> None:
        """Release what the mixture acquired; a member that was loaded before it stays loaded."""
        while self._workers:
            self._workers.popitem()[1].close()
        self._proposers = []
        errors: list[Exception] = []
        while self._loaded_here:
            try:
                self._loaded_here.pop().unload()
            except Exception as error:  # the others hold connections too
                errors.append(error)
        super().unload()
        if errors:
            raise errors[0]

    # What is checked before anything is sent

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        self.aggregator_llm.check_input(input)
        chat, _ = split_input(input)
        refusals = [error for llm in self.proposers_llms if (error := _refusal(llm, chat)) is not None]
        if len(self.proposers_llms) - len(refusals) < (self.min_proposals or 1):
            raise refusals[0]

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = super().check_arguments(arguments)
        aggregator, proposers = checked.get("aggregator_llm"), checked.get("proposers_llms")
        if proposers is not None and len(proposers) != len(self.proposers_llms):
            raise ConfigurationError(
                f"proposers_llms has {len(proposers)} dicts of generation parameters, but there are "
                f"{len(self.proposers_llms)} proposers",
                hint="give one for each proposer; use {} for no parameters",
            )
        for (name, llm), own in zip(self._members(), [aggregator, *(proposers or ())], strict=False):
            if own is not None:
                llm.check_arguments(own)
            declared = llm.generation_parameters()
            if checked.get("seed") is not None and "seed" not in declared.parameters:
                raise ConfigurationError(
                    f"a seed was given, but {name} ({type(llm).__name__}) does not support seeds",
                    hint="set the seeds of the other members in aggregator_llm and proposers_llms",
                )
        return checked

    def get_generation_kwargs(self) -> dict[str, Any]:
        """The generation parameters in force when a call gives none, with those of the members."""
        own = super().get_generation_kwargs()
        proposers = own.get("proposers_llms") or [{}] * len(self.proposers_llms)
        return {
            **own,
            "aggregator_llm": {
                **self.aggregator_llm.get_generation_kwargs(),
                **(own.get("aggregator_llm") or {}),
            },
            "proposers_llms": [
                {**llm.get_generation_kwargs(), **given}
                for llm, given in zip(self.proposers_llms, proposers, strict=False)
            ],
        }

    # Generating

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        aggregator_llm: dict[str, Any] | None = None,
        proposers_llms: list[dict[str, Any]] | None = None,
        seed: int | None = None,
    ) -> GenerateOutput:
        """Let the proposers answer, and the aggregator write the generations from their answers.

        Args:
            input: the chat, and optionally a structured output, which applies to the aggregator.
            num_generations: number of generations of the aggregator.
            aggregator_llm: generation parameters of the aggregator, such as `{"temperature": 0.2}`.
            proposers_llms: generation parameters of each proposer, in order.
            seed: seed of the aggregator; each call of a proposer gets a different seed derived from it.

        Raises:
            GenerationError: the aggregator failed, or too few proposers answered.
        """
        chat, own = split_input(input)
        assert not isinstance(chat, str)  # a raw prompt is refused
        form: Any = self.structured_output if own is None else own
        row, count = _Row(Usage([*self._proposers, self._aggregator])), len(self._proposers)
        given = proposers_llms or [{}] * count
        proposals: list[str] = []
        for number in range(self.rounds or 1):
            seeds = [None if seed is None else seed + number * count + place for place in range(1, count + 1)]
            asked = with_proposals(chat, proposals)
            proposals = await self._propose(asked, number + 1, _seeded(given, seeds), row)
        final: Any = with_proposals(chat, proposals)
        final = final if form is None else (final, form)
        (arguments,) = _seeded([aggregator_llm or {}], [seed])
        try:
            output = await self._aggregator.ask(
                final, num_generations, arguments, self.member_timeout, self.claim_stream()
            )
        except GenerationError as error:
            row.usage.add(self._aggregator, error)
            raise _told(self._aggregator, error, row) from error
        row.usage.add(self._aggregator, output)
        output = row.usage.added_to(output)
        if row.missing:
            notes = [item.note for item in row.missing]
            output["missing_proposals"] = [notes] * len(output["generations"])  # type: ignore[typeddict-unknown-key]
        return output

    async def _propose(
        self, input: FormattedInput, number: int, given: Sequence[dict[str, Any]], row: _Row
    ) -> list[str]:
        """Return the proposals of one round, in the order of the proposers.

        Raises:
            GenerationError: too few of them answered.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._proposal(member, input, number, arguments, row))
                for member, arguments in zip(self._proposers, given, strict=True)
            ]
        results = [task.result() for task in tasks]
        missing = [item for item in results if isinstance(item, Missing)]
        proposals = [item for item in results if isinstance(item, str)]
        row.missing += missing
        needed = self.min_proposals or 1
        if len(proposals) < needed:
            raise failure_of_all(missing, needed, len(results), _paid(row))
        return proposals

    async def _proposal(
        self, member: Member, input: FormattedInput, number: int, arguments: dict[str, Any], row: _Row
    ) -> str | Missing:
        if member.refused is not None:
            return Missing(member, number, member.refused)
        try:
            output = await member.ask(input, 1, arguments, self.member_timeout)
        except GenerationError as error:
            row.usage.add(member, error)
            if error.stops_run and self._logger is not None:
                self._logger.warning("%s is no longer used: %s", member, error.message)
            return Missing(member, number, error)
        row.usage.add(member, output)
        return Missing.of(member, number, output) or output["generations"][0] or ""


def _refusal(llm: LLM, chat: Any) -> ConfigurationError | UnsupportedError | None:
    try:
        llm.check_input(chat)
    except (ConfigurationError, UnsupportedError) as error:
        return error
    return None


def _seeded(given: Sequence[dict[str, Any]], seeds: Sequence[int | None]) -> list[dict[str, Any]]:
    """Return generation parameters, with a seed where there is one and they have none of their own."""
    return [
        arguments if seed is None or arguments.get("seed") is not None else {**arguments, "seed": seed}
        for arguments, seed in zip(given, seeds, strict=True)
    ]


def _paid(row: _Row) -> list[GenerateOutput]:
    """Return what an error carries of a row: no text, and the tokens that were used."""
    empty: GenerateOutput = {"generations": [None], "statistics": {}}
    return [row.usage.added_to(empty)] if row.usage.statistics else []


def _told(member: Member, error: GenerationError, row: _Row) -> GenerationError:
    """Return the error of the aggregator as that of the row."""
    return GenerationError(
        f"{member}: {error.message}",
        kind=error.kind,
        attempts=error.attempts or int(bool(row.usage.statistics)),
        outputs=_paid(row),
        request_id=error.request_id,
        stops_run=error.stops_run,
        hint=error.hint,
    )
