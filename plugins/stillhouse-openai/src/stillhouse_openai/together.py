"""`TogetherLLM`: open models on Together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from pydantic import Field

from stillhouse import FormattedInput, GenerateOutput
from stillhouse.http.batches import BatchLimits
from stillhouse.offline import Chunk
from stillhouse.typing import ModelInfo
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.parameters import TogetherParameters
from stillhouse_openai.pricing import with_prices

__all__ = ["TogetherLLM"]


class TogetherLLM(FileBatchLLM):
    """Open models on Together. The environment variables are those of Together's SDK."""

    default_base_url: ClassVar[str | None] = "https://api.together.ai/v1"
    base_url_variable: ClassVar[str | None] = "TOGETHER_BASE_URL"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "TOGETHER_API_KEY"

    max_tokens_name: str = Field(
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )

    def logprobs_fields(self, raw: bool, logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
        return super().logprobs_fields(True, logprobs, top_logprobs)  # a number in chats too

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        return with_prices(answer, super().models_in(answer), ("input", "output"))

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, bytes=100_000_000)
    batch_endpoints: ClassVar[dict[str, str]] = {"chat/completions": "/v1/chat/completions"}
    batch_upload_path: ClassVar[str] = "files/upload"
    batch_file_purpose: ClassVar[str] = "batch-api"

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "body": body}

    def batch_file_fields(self, name: str) -> dict[str, str]:
        return {**super().batch_file_fields(name), "file_name": name, "file_type": "jsonl"}

    def batch_job_body(self, chunk: Chunk) -> dict[str, Any]:
        body = super().batch_job_body(chunk)
        del body["metadata"]  # its jobs have none; the id of the file identifies a job
        return body

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[TogetherParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with further parameters.

        Args:
            top_k: sample from this many most likely tokens.
            min_p: sample from tokens with at least this fraction of the most likely token's probability.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none.
        """
        return await self.complete(input, num_generations, arguments)
