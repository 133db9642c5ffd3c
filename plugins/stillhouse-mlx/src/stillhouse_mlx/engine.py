"""The engine: a model that mlx-lm has read, and what makes sequences of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from stillhouse.errors import ConfigurationError
from stillhouse.local import Answer, Generation, Prompts, TokenTexts
from stillhouse.typing import OnPiece
from stillhouse_mlx.choosers import Chooser
from stillhouse_mlx.library import Library
from stillhouse_mlx.memory import Memory, Needs
from stillhouse_mlx.models import Device, Settings, read_model
from stillhouse_mlx.prefixes import Prefixes
from stillhouse_mlx.rows import RowModel, Rows
from stillhouse_mlx.sampling import BatchSampler
from stillhouse_mlx.sequences import OneByOne

__all__ = ["Engine", "Settings"]

# Sequences that grow at once, if nobody says how many. A CPU computes several hardly faster than one.
_SLOTS_ON_GPU, _SLOTS_ON_CPU = 32, 4

# Tokens of a prompt that are read in one step, if nobody says how many: it should not take seconds.
_STEP_ON_GPU, _STEP_ON_CPU = 2048, 256

# Prompts that are read at once; more would make those that are being answered wait.
_PROMPTS = 8

# How far logits may differ between a sequence alone and in a batch, in standard deviations of the
# logits: rounding stays far below, and a model that takes padding for text is far above.
_ROUNDING = {"float32": 0.01}
_COARSE_ROUNDING = 0.25

# Two prompts, by which that is found out.
_SHORT, _LONG = [5, 9], [3, 4, 6, 7, 8]

# Bytes for each logit of a step, with what is made of it to choose a token.
_LOGITS = 24

# Tokens after which is looked whether there is memory for as many more.
_LOOK = 64

# How often a generator is asked for the first token of a short prompt: it may read the prompt first.
_PATIENCE = 8


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
        step: how many tokens of a prompt are read at once.
        ahead: how many more a generator takes, to begin them as soon as others end.
        batches: whether the model computes alike in a batch and alone.
        stream: where everything is computed.
        prefixes: the beginnings of prompts that are kept; `None` if none are to be.

    Raises:
        ConfigurationError: there is no such device, or the model cannot be read.
    """

    def __init__(self, library: Library, settings: Settings) -> None:
        self._library = library
        mx = library.mx
        device = _device(library, settings.device)
        is_gpu = device == mx.gpu
        self.step = settings.prefill_step or (_STEP_ON_GPU if is_gpu else _STEP_ON_CPU)
        # GPUs have no numbers of 64 bits.
        self._exact = mx.float32 if is_gpu else mx.float64
        self.stream = mx.new_thread_local_stream(device)
        with mx.stream(self.stream):
            read = read_model(library, settings, is_gpu)
            self._model = read.model
            self._needs: Needs | None = None
            self._memory = Memory()
            self.tokenizer = read.tokenizer
            self.prompts = Prompts(read.tokenizer)
            self.context_length = read.context_length
            self.eos = read.eos
            self._texts = TokenTexts(read.tokenizer)
            self.defaults = read.defaults
            self.slots = settings.batch_size or (_SLOTS_ON_GPU if is_gpu else _SLOTS_ON_CPU)
            self.batches, self.vocabulary_size = True, 0
            alone = self._probe(self._one_by_one(self._model), [_SHORT])
            self.vocabulary_size = int(alone.shape[-1])
            self.eos = frozenset(end for end in self.eos if end < self.vocabulary_size)
            if self.slots > 1 and not self._is_alike(alone):
                self.batches, self.slots = False, 1
            # A sequence that is there when another ends begins one step earlier.
            self.ahead = min(_PROMPTS, self.slots) if self.batches else 0
            if not is_gpu:
                self._needs = Needs.of(self.read(_LONG, None), read.config, self.step)
            kept = settings.prompt_cache
            self.prefixes = Prefixes(self.read, kept, self.context_length) if kept else None
            mx.clear_cache()

    @property
    def mx(self) -> Any:
        """The arrays."""
        return self._library.mx

    def answer(self, generation: Generation, on_piece: OnPiece | None = None) -> Answer:
        """The answer to a generation, still empty; `on_piece` takes its text as it grows."""
        return Answer(generation, self.prompts, self.tokenizer, self._texts, self.eos, on_piece)

    def sequences(self) -> Sequences:
        """What sequences are put into, none yet."""
        model = RowModel(self.mx, self._model)
        sampler = BatchSampler(self.mx, model, self.vocabulary_size, self._exact)
        generator = self._batch(model) if self.batches else self._one_by_one(model)
        return Sequences(self, generator, sampler)

    def cache(self) -> list[Any]:
        """What the model remembers of a sequence, of which it has read nothing."""
        made: list[Any] = self._library.caches.make_prompt_cache(self._model)
        return made

    def require_memory(self, count: int, tokens: int, kept: int, prompt: int = 0) -> None:
        """Refuse what there is not memory enough for.

        Args:
            count: how many sequences there are to be.
            tokens: of the longest.
            kept: how many bytes of them are there.
            prompt: how long the longest prompt is that is to be read.

        Raises:
            MemoryError: there is too little.
        """
        if self._needs is None:
            return
        need = self._needs.of_sequences(count, tokens) + self._needs.of_reading(min(count, _PROMPTS), prompt)
        need += _LOGITS * count * self.vocabulary_size
        what = f"{count} sequences of up to {tokens} tokens" if count > 1 else f"{tokens} tokens"
        self._memory.require(need - kept, self.mx.get_cache_memory(), what)

    def read(self, tokens: Sequence[int], cache: list[Any] | None) -> list[Any]:
        """Let the model read tokens; see `Prefixes`.

        Raises:
            MemoryError: there is too little.
        """
        mx = self.mx
        self.require_memory(1, len(tokens), 0, len(tokens))
        cache = self.cache() if cache is None else cache
        for start in range(0, len(tokens), self.step):
            self._model(mx.array(tokens[start : start + self.step])[None], cache=cache)
            mx.eval([part.state for part in cache])
        return cache

    def forget(self) -> None:
        """Give back what is only kept for later."""
        if self.prefixes is not None:
            self.prefixes.clear()
        self.mx.clear_cache()

    def _one_by_one(self, model: Any) -> OneByOne:
        return OneByOne(self._library.mx, model, self.eos, self.read, self.step)

    def _batch(self, model: Any) -> Any:
        return self._library.generation.BatchGenerator(
            model,
            stop_tokens=[[end] for end in sorted(self.eos)],
            completion_batch_size=self.slots,
            prefill_batch_size=min(_PROMPTS, self.slots),
            prefill_step_size=self.step,
            stream=self.stream,
        )

    def _probe(self, generator: Any, prompts: list[list[int]]) -> Any:
        """The log-probabilities after the last of some prompts."""
        count = len(prompts)
        caches = [self.cache() for _ in prompts]
        *_, last = generator.insert(prompts, [1] * count, caches=caches, samplers=[None] * count)
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
            beside = self._probe(self._batch(self._model), [_LONG, _SHORT])
        except Exception:
            return False
        limit = _ROUNDING.get(str(alone.dtype).rpartition(".")[2], _COARSE_ROUNDING)
        one, other = (numpy.array(each.astype(self.mx.float32)) for each in (alone, beside))
        return bool(numpy.abs(one - other).max() <= limit * one.std())


class Sequences:
    """Sequences that grow together.

    Args:
        engine: the engine.
        generator: of sequences, with the methods of mlx-lm's `BatchGenerator`.
        sampler: for all of them.
    """

    def __init__(self, engine: Engine, generator: Any, sampler: BatchSampler) -> None:
        self._engine = engine
        self._generator = generator
        self._sampler = sampler
        self._lengths: dict[int, int] = {}  # of the sequences, by their numbers
        self._steps = 0

    def insert(self, tokens: Sequence[int], limit: int, cache: list[Any] | None, chooser: Chooser) -> int:
        """Begin a sequence.

        Args:
            tokens: of its prompt, after those that the model remembers.
            limit: maximum number of tokens to generate.
            cache: what the model remembers.
            chooser: what the choice of its tokens depends on.

        Returns:
            Its number.
        """
        layers = self._engine.cache() if cache is None else cache
        (number,) = self._generator.insert(
            [list(tokens)], [limit], caches=[[*layers, Rows([chooser])]], samplers=[self._sampler]
        )
        self._lengths[number] = len(chooser.prompt)
        return int(number)

    def next(self) -> list[Any]:
        """Return the next token of those that are past their prompts.

        Raises:
            MemoryError: there is too little to go on.
        """
        self._steps += 1
        if self._steps % _LOOK == 0:
            self.require_memory(0)
        responses: list[Any] = self._generator.next()[1]
        for response in responses:
            if response.finish_reason is None:
                self._lengths[response.uid] += 1
            else:
                del self._lengths[response.uid]
        return responses

    def require_memory(self, prompt: int) -> None:
        """Refuse to go on where there is not memory enough.

        Args:
            prompt: how many tokens the prompt of another sequence has; 0 for none but those there are.

        Raises:
            MemoryError: there is too little.
        """
        count = len(self._lengths) + bool(prompt)
        longest = max(prompt, *self._lengths.values()) if self._lengths else prompt
        kept = self._generator.prompt_cache_nbytes
        self._engine.require_memory(count, longest + _LOOK, kept, prompt)

    def remove(self, numbers: Sequence[int]) -> None:
        """Take sequences out."""
        self._generator.remove(numbers)
        for number in numbers:
            del self._lengths[number]

    def close(self) -> None:
        """Let go of the generator."""
        self._generator.close()


def _device(library: Library, wanted: Device) -> Any:
    mx = library.mx
    if wanted == "auto":
        return mx.default_device()
    device = mx.gpu if wanted == "gpu" else mx.cpu
    if not mx.is_available(device):
        raise ConfigurationError(
            f"device is {wanted}, but MLX finds none on this machine",
            hint="leave out device; a GPU requires a Mac with Apple silicon, or mlx[cuda13] on Linux",
        )
    return device
