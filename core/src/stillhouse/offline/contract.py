"""The contract of offline batches: jobs bound to their inputs, polling, interrupts."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field, PrivateAttr

from stillhouse._execution.lifecycle import mark
from stillhouse._settings.digest import digest
from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.errors import OfflineBatchNotFinishedError, UnsupportedError
from stillhouse.typing import FormattedInput, GenerateOutput

if TYPE_CHECKING:
    from stillhouse.offline.ledger import BatchLedger
    from stillhouse.offline.protocol import OfflineBatchCalls

__all__ = ["OfflineBatchMixin", "binding"]

_logger = logging.getLogger("stillhouse.offline")

Generate = TypeVar("Generate", bound=Callable[..., list[GenerateOutput]])


class OfflineBatchMixin(BaseModel):
    """Generating through a provider's batch API, at a lower price and within hours."""

    use_offline_batch_generation: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to generate through the provider's offline batch API.",
    )
    offline_batch_generation_block_until_done: RuntimeParameter[float] | None = Field(
        default=None,
        ge=0,
        description="Seconds between two polls while waiting for the batch; None does not wait.",
    )
    jobs_ids: tuple[str, ...] | None = Field(
        default=None, description="The provider's ids of the jobs submitted and not yet collected."
    )
    jobs_digest: str | None = Field(
        default=None, description="The digest of the inputs and arguments that jobs_ids belong to."
    )

    _inside_offline_call: bool = PrivateAttr(default=False)

    def offline_batch_generate(
        self,
        inputs: Sequence[FormattedInput] | None = None,
        num_generations: int = 1,
        **kwargs: Any,
    ) -> list[GenerateOutput]:
        """Submit a batch, or collect it if it was submitted before.

        A backend implements it: if `jobs_ids` is `None`, submit the inputs; otherwise check these jobs. It
        raises `OfflineBatchNotFinishedError` with the ids until the jobs are done. A wrapper stores the ids,
        checks that they belong to these inputs and arguments, and removes them after the outputs were
        collected. If the engine is on this machine (see `LLM.batch_key`), a backend implements nothing: the
        outputs are generated at once.

        Args:
            inputs: the inputs; `None` collects the batch that was submitted before.
            num_generations: the number of generations for each input, at least 1.
            kwargs: generation parameters.

        Raises:
            OfflineBatchNotFinishedError: the provider is still working; `jobs_ids` has the jobs.
            UnsupportedError: the backend has no offline batches.
        """
        return self._offline_batch_generate_here(inputs, num_generations, kwargs)

    def _offline_batch_generate_here(
        self, inputs: Sequence[FormattedInput] | None, num_generations: int, kwargs: dict[str, Any]
    ) -> list[GenerateOutput]:
        """Generate a batch on this machine, for a backend without a provider's."""
        raise UnsupportedError(
            f"{type(self).__name__} has no offline batch generation",
            hint="set use_offline_batch_generation to False",
        )

    def open_offline_batch(
        self, ledger: BatchLedger, key: str, num_generations: int, arguments: Mapping[str, Any]
    ) -> OfflineBatchCalls:
        """Open the batches of a bulk run, for any number of inputs, with outputs that are not kept in memory.

        Args:
            ledger: the ledger for their state.
            key: the name of the run in the ledger.
            num_generations: the number of generations for each input.
            arguments: generation parameters.

        Returns:
            An object with the interface of `stillhouse.offline.OfflineBatch`.

        Raises:
            UnsupportedError: the backend has no batches that a bulk run can use.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no offline batches", hint="run it online: leave out --batch"
        )

    def _offline_batch_generate_polling(
        self,
        inputs: Sequence[FormattedInput] | None = None,
        num_generations: int = 1,
        **kwargs: Any,
    ) -> list[GenerateOutput]:
        """Call `offline_batch_generate` until the batch is done.

        Raises:
            OfflineBatchNotFinishedError: the caller was interrupted; the jobs are still running.
        """
        while True:
            try:
                try:
                    return self.offline_batch_generate(inputs, num_generations, **kwargs)
                except OfflineBatchNotFinishedError as unfinished:
                    _logger.info("%s", unfinished.message)
                time.sleep(self.offline_batch_generation_block_until_done or 0)
            except KeyboardInterrupt:
                raise OfflineBatchNotFinishedError(self.jobs_ids or ()) from None


def binding(function: Generate) -> Generate:
    """Bind the jobs of an `offline_batch_generate` to the inputs and arguments they were made from."""

    @functools.wraps(function)
    def offline_batch_generate(
        self: OfflineBatchMixin,
        inputs: Sequence[FormattedInput] | None = None,
        num_generations: int = 1,
        **kwargs: Any,
    ) -> list[GenerateOutput]:
        if self._inside_offline_call:
            return function(self, inputs, num_generations, **kwargs)
        own = None if inputs is None else digest(inputs, num_generations, kwargs)
        if self.jobs_ids is not None and own and self.jobs_digest not in (None, own):
            _logger.warning(
                "the inputs or arguments changed, so new jobs are submitted; not collected: %s",
                ", ".join(self.jobs_ids),
            )
            self.jobs_ids = None
        self._inside_offline_call = True
        try:
            outputs = function(self, inputs, num_generations, **kwargs)
            self.jobs_ids = None
        except OfflineBatchNotFinishedError as unfinished:
            self.jobs_ids = unfinished.jobs_ids or self.jobs_ids
            raise
        finally:
            # Also after an interrupt: jobs may have been submitted before it.
            self._inside_offline_call = False
            self.jobs_digest = None if self.jobs_ids is None else own or self.jobs_digest
        return outputs

    return mark(offline_batch_generate)  # type: ignore[return-value]
