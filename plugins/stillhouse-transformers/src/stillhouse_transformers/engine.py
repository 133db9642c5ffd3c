"""A loaded model, and what is made with it: generations and hidden states, in batches."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from stillhouse.errors import StillhouseError
from stillhouse.local import (
    Answer,
    Generation,
    Job,
    JobQueue,
    Prompts,
    SamplingDefaults,
    TokenTexts,
    engine_failed,
)
from stillhouse_transformers.batch import Batch, padded
from stillhouse_transformers.quiet import Silencer
from stillhouse_transformers.rows import Row
from stillhouse_transformers.states import States

__all__ = ["Engine"]

J = TypeVar("J", bound=Job[Any, Any])


class Engine:
    """A loaded model. One thread at a time may use it.

    Args:
        model: of the library `transformers`, for generating.
        tokenizer: of the model.
        context_length: how many tokens prompt and answer may have together.
        batch_size: how many sequences are made at a time; `None` for what suits the device.
        silencer: what keeps the library quiet in this thread, closed when the work is done.

    Attributes:
        tokenizer: of the model.
        context_length: how many tokens prompt and answer may have together.
        vocabulary_size: the width of the model's logits.
        eos: the tokens that end an answer.
        defaults: what the model's own `generation_config` says.
        prompts: what makes texts of tokens; the LLM sets it before it asks for anything.
    """

    prompts: Prompts

    def __init__(
        self, model: Any, tokenizer: Any, context_length: int, batch_size: int | None, silencer: Silencer
    ) -> None:
        self._model = model
        self.tokenizer = tokenizer
        self.context_length = context_length
        self._device = model.device
        self.vocabulary_size = int(model.config.get_text_config(decoder=True).vocab_size)
        self.eos = _eos_of(model, tokenizer, self.vocabulary_size)
        self.defaults = SamplingDefaults.of(model.generation_config.to_dict())
        self._pad = _pad_of(model, tokenizer, self.eos, self.vocabulary_size)
        _neutralize(model, self.eos, self._pad)
        self.batch_size = batch_size or (64 if self._device.type == "cuda" else 16)
        self._texts = TokenTexts(tokenizer)
        self._silencer = silencer

    def serve(self, queue: JobQueue[Any, Any]) -> None:
        """Make what is in a queue, until it is closed."""
        try:
            self._serve(queue)
        finally:
            if queue.is_closed:
                self._silencer.close()

    def _serve(self, queue: JobQueue[Any, Any]) -> None:
        while jobs := queue.take(self.batch_size):
            generations = [job for job in jobs if isinstance(job.request, Generation)]
            states = [job for job in jobs if isinstance(job.request, States)]
            if generations:
                self._in_parts(self._generate, generations)
            if states:
                self._in_parts(self._hidden_states, states)

    def _in_parts(self, make: Callable[[list[J]], None], jobs: list[J]) -> None:
        """Make what jobs want, and where that fails, in halves.

        So memory that does not suffice for all at once may suffice for each half, and what is wrong with
        one job fails no other one.

        Args:
            make: ends jobs; where it raises, it has left those in the list that have not ended.
            jobs: the jobs.
        """
        try:
            make(jobs)
            return
        except Exception as error:
            # The error itself would hold the frames, and these the tensors.
            failure = engine_failed(error)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            jobs[0].fail(failure)
            return
        half = (len(jobs) + 1) // 2
        for part in (jobs[:half], jobs[half:]):
            if part:
                self._in_parts(make, part)

    def _generate(self, jobs: list[Job[Generation, Any]]) -> None:
        rows: list[Row] = []
        words = 1
        for job in jobs:
            request = job.request
            try:
                matcher = request.matcher()
            except StillhouseError as error:
                job.fail(error)
                continue
            if matcher is not None and request.compiler is not None:
                words = request.compiler.words
            answer = Answer(request, self.prompts, self.tokenizer, self._texts, self.eos, job.on_piece)
            rows.append(Row(job, answer, matcher))
        jobs[:] = [row.job for row in rows]
        if not rows:
            return
        tokens, mask = padded([row.request.prompt for row in rows], self._pad, self._device, left=True)
        batch = Batch(rows, tokens, mask, self.vocabulary_size, words)
        try:
            self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=batch.limit,
                logits_processor=[batch.process],
                stopping_criteria=[batch.stop],
            )
        finally:
            jobs[:] = batch.unfinished

    def _hidden_states(self, jobs: list[Job[States, Any]]) -> None:
        # Padded on the right: a token does not see what comes after it, and its position is its own.
        tokens, mask = padded([job.request.prompt for job in jobs], self._pad, self._device, left=False)
        inner = self._model.base_model
        with torch.inference_mode():
            if inner is self._model:
                output = inner(
                    input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=True
                )
                states = output.hidden_states[-1]
            else:
                # Without the head, whose logits for every token take much memory.
                states = inner(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            states = states.float().cpu().numpy()
        for job, own in zip(jobs, states, strict=True):
            job.finish(own[: len(job.request.prompt)].copy())


def _numbers(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value or ())


def _eos_of(model: Any, tokenizer: Any, vocabulary_size: int) -> frozenset[int]:
    """The tokens that end an answer: those of the model, and the tokenizer's, which chats may end with."""
    found = [*_numbers(model.generation_config.eos_token_id), *_numbers(tokenizer.eos_token_id)]
    return frozenset(token for token in found if 0 <= token < vocabulary_size)


def _pad_of(model: Any, tokenizer: Any, eos: frozenset[int], vocabulary_size: int) -> int:
    """A token to pad with; any will do, for what is padding is in a mask."""
    candidates = [
        *_numbers(model.generation_config.pad_token_id),
        *_numbers(tokenizer.pad_token_id),
        *sorted(eos),
    ]
    return next((token for token in candidates if 0 <= token < vocabulary_size), 0)


# What the library applies to each row by itself, and this backend has no parameter for.
_LEFT_TO_LIBRARY = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "max_cache_len",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "prefill_chunk_size",
    "sequence_bias",
    "suppress_tokens",
)


def _neutralize(model: Any, eos: frozenset[int], pad: int) -> None:
    """Leave to `generate` only what does not depend on the call: the rows have the rest."""
    own = model.generation_config
    kept = {name: value for name in _LEFT_TO_LIBRARY if (value := getattr(own, name, None)) is not None}
    model.generation_config = type(own)(
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(eos) or None,
        pad_token_id=pad,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        **kept,
    )
