"""The engine: a model that mlx-lm has read, and the batch in which its sequences grow."""

from __future__ import annotations

from typing import Any

import numpy

from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.local import Answer, Generation, Job, JobQueue, Prompts, TokenTexts, unloaded
from stillhouse.typing import GenerateOutput
from stillhouse_mlx.generation import Growing
from stillhouse_mlx.library import Library
from stillhouse_mlx.models import Device, Settings, read_model
from stillhouse_mlx.prefixes import Prefixes
from stillhouse_mlx.sampling import BatchSampler
from stillhouse_mlx.sequences import OneByOne

__all__ = ["Engine", "Settings", "serve"]

# Sequences that grow at once, if nobody says how many. A CPU computes several hardly faster than one.
_ON_GPU, _ON_CPU = 32, 4

# Prompts that are read at once; more would make those that are being answered wait.
_PROMPTS = 8

# How far logits may differ between a sequence alone and in a batch, in standard deviations of the
# logits: rounding stays far below, and a model that takes padding for text is far above.
_ROUNDING = {"float32": 0.01}
_COARSE_ROUNDING = 0.25

# Two prompts, by which that is found out.
_SHORT, _LONG = [5, 9], [3, 4, 6, 7, 8]

# How often a generator is asked for the first token of a short prompt: it may read the prompt first.
_PATIENCE = 8

_Job = Job[Generation, GenerateOutput]


class Engine:
    """A loaded model. Everything here happens in the thread that makes it.

    Args:
        library: the library.
        settings: fields of the LLM.

    Attributes:
        tokenizer: of mlx-lm.
        prompts: makes texts of tokens.
        context_length: how long a sequence may be, in tokens.
        eos: the tokens that end an answer.
        defaults: the settings of sampling that the model comes with.
        vocabulary_size: the width of the logits.
        slots: how many sequences grow at once.
        batches: whether the model computes alike in a batch and alone.
        stream: where everything is computed.
        prefixes: the beginnings of prompts that are kept.

    Raises:
        ConfigurationError: there is no such device, or the model cannot be read.
    """

    def __init__(self, library: Library, settings: Settings) -> None:
        self._library = library
        self._step = settings.prefill_step
        device = _device(library, settings.device)
        self.stream = library.mx.new_thread_local_stream(device)
        with library.mx.stream(self.stream):
            read = read_model(library, settings)
            self._model = read.model
            self.tokenizer = read.tokenizer
            self.prompts = Prompts(read.tokenizer)
            self.context_length = read.context_length
            self.eos = frozenset(read.tokenizer.eos_token_ids)
            self._texts = TokenTexts(read.tokenizer)
            self.defaults = read.defaults
            self.slots = settings.batch_size or (_ON_GPU if device == library.mx.gpu else _ON_CPU)
            self.batches = True
            alone = self._probe(self._one_by_one(), [_SHORT])
            self.vocabulary_size = int(alone.shape[-1])
            if self.slots > 1 and not self._is_alike(alone):
                self.batches, self.slots = False, 1
            self.prefixes = Prefixes(self.read, settings.prompt_cache) if settings.prompt_cache else None
            library.mx.clear_cache()

    @property
    def mx(self) -> Any:
        """The arrays."""
        return self._library.mx

    def answer(self, generation: Generation) -> Answer:
        """The answer to a generation, of which nothing has come yet."""
        return Answer(generation, self.prompts, self.tokenizer, self._texts, self.eos)

    def generator(self) -> Any:
        """A new generator of sequences, with the methods of mlx-lm's `BatchGenerator`."""
        if not self.batches:
            return self._one_by_one()
        return self._batch()

    def read(self, tokens: list[int], cache: list[Any] | None) -> list[Any]:
        """Let the model read tokens; see `Prefixes`."""
        mx = self._library.mx
        if cache is None:
            cache = self._library.caches.make_prompt_cache(self._model)
        for start in range(0, len(tokens), self._step):
            self._model(mx.array(tokens[start : start + self._step])[None], cache=cache)
            mx.eval([part.state for part in cache])
        return cache

    def _one_by_one(self) -> OneByOne:
        return OneByOne(self._library, self._model, list(self.eos), self.read)

    def _batch(self) -> Any:
        return self._library.generation.BatchGenerator(
            self._model,
            stop_tokens=[[end] for end in sorted(self.eos)],
            completion_batch_size=self.slots,
            prefill_batch_size=min(_PROMPTS, self.slots),
            prefill_step_size=self._step,
            stream=self.stream,
        )

    def _probe(self, generator: Any, prompts: list[list[int]]) -> Any:
        """The log-probabilities after the last of some prompts."""
        count = len(prompts)
        nothing = [None] * count
        *_, last = generator.insert(
            prompts, [1] * count, caches=nothing, samplers=nothing, logits_processors=[[]] * count
        )
        try:
            for _ in range(_PATIENCE):
                for response in generator.next()[1]:
                    if response.uid == last:
                        return response.logprobs
            raise RuntimeError("mlx-lm computed nothing")
        finally:
            generator.close()

    def _is_alike(self, alone: Any) -> bool:
        """Whether a short prompt gives the same beside a longer one.

        Some models of mlx-lm take the padding of a batch for text, and some cannot be batched at all.
        """
        try:
            beside = self._probe(self._batch(), [_LONG, _SHORT])
        except Exception:
            return False
        limit = _ROUNDING.get(str(alone.dtype).rpartition(".")[2], _COARSE_ROUNDING)
        one, other = (numpy.array(each.astype(self.mx.float32)) for each in (alone, beside))
        return bool(numpy.abs(one - other).max() <= limit * one.std())


def _device(library: Library, wanted: Device) -> Any:
    mx = library.mx
    if wanted == "auto":
        return mx.default_device()
    device = mx.gpu if wanted == "gpu" else mx.cpu
    if not mx.is_available(device):
        raise ConfigurationError(
            f"device is {wanted}, and MLX finds none on this machine",
            hint="leave device out; a GPU needs a Mac with Apple silicon, or mlx[cuda13] on Linux",
        )
    return device


class _Batch:
    """The sequences that grow together, each for a job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._generator = engine.generator()
        self._sampler = BatchSampler(engine.mx, engine.vocabulary_size)
        self._under_way: dict[int, tuple[_Job, Growing]] = {}  # by the generator's number

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def free(self) -> int:
        """How many more there is room for."""
        return self._engine.slots - len(self._under_way)

    def admit(self, job: _Job) -> None:
        """Let the sequence of a job begin."""
        if job.cancelled:
            job.fail(unloaded())
            return
        request = job.request
        prompt = list(request.prompt)
        cached, cache = 0, None
        if self._engine.prefixes is not None:
            cached, cache = self._engine.prefixes.take(prompt)
        kept = None if self._engine.prefixes is None else cached
        try:
            generation = Growing(request, self._engine.answer(request), self._engine.eos, kept)
        except StillhouseError as error:
            job.fail(error)
            return
        # Where nothing but the most probable token is wanted, the generator's own way is the shortest.
        plain = generation.chooser.is_plain_greedy and request.candidates is None
        (number,) = self._generator.insert(
            [prompt[cached:]],
            [request.limit],
            caches=[cache],
            samplers=[None if plain else self._sampler],
            logits_processors=[[] if plain else [self._sampler.processor(generation.chooser)]],
        )
        self._under_way[number] = (job, generation)

    def step(self) -> None:
        """Give every sequence its next token, and end the jobs of those that are finished."""
        ended = [number for number, (job, _) in self._under_way.items() if job.cancelled]
        for number in ended:
            self._under_way.pop(number)[0].fail(unloaded())
        if ended:
            self._generator.remove(ended)
        if not self._under_way:
            return
        ended = []
        for response in self._generator.next()[1]:
            job, generation = self._under_way[response.uid]
            reason = generation.add(response.token, response.logprobs) or response.finish_reason
            error = generation.chooser.error
            if reason is None and error is None:
                continue
            del self._under_way[response.uid]
            if response.finish_reason is None:
                ended.append(response.uid)
            if error is None:
                job.finish(generation.output(reason or "stop"))
            else:
                job.fail(error)
        if ended:
            self._generator.remove(ended)

    def close(self) -> None:
        """Let go of the generator."""
        self._generator.close()


def serve(engine: Engine, queue: JobQueue[Generation, GenerateOutput]) -> None:
    """End the jobs of a queue, until it is closed."""
    with engine.mx.stream(engine.stream):
        batch = _Batch(engine)
        try:
            while not queue.is_closed:
                if batch.free:
                    for job in queue.take(batch.free, wait=not len(batch)):
                        batch.admit(job)
                batch.step()
        finally:
            batch.close()
