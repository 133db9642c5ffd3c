"""`TogetherLLM`: open models on Together."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from stillhouse import FormattedInput, GenerateOutput
from stillhouse.http.batches import BatchLimits
from stillhouse.ledger import Chunk
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.compatible import CompatibleLLM

__all__ = ["TogetherLLM"]


class TogetherLLM(FileBatchLLM):
    """Open models on Together. The variables of the environment are those of Together's SDK."""

    default_base_url: ClassVar[str | None] = "https://api.together.ai/v1"
    base_url_variable: ClassVar[str | None] = "TOGETHER_BASE_URL"
    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "TOGETHER_API_KEY"

    max_tokens_name: str = Field(
        default="max_tokens", description="What the server calls max_new_tokens in chats."
    )

    def logprobs_fields(self, raw: bool, logprobs: bool | None, top_logprobs: int | None) -> dict[str, Any]:
        return super().logprobs_fields(True, logprobs, top_logprobs)  # a number in chats too

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, bytes=100_000_000)
    batch_endpoints: ClassVar[dict[str, str]] = {"chat/completions": "/v1/chat/completions"}
    batch_upload_path: ClassVar[str] = "files/upload"
    batch_file_purpose: ClassVar[str] = "batch-api"

    own_parameters: ClassVar[tuple[str, ...]] = ("top_k", "min_p", "repetition_penalty")

    def batch_line(self, custom_id: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"custom_id": custom_id, "body": body}

    def batch_file_fields(self, name: str) -> dict[str, str]:
        return {**super().batch_file_fields(name), "file_name": name, "file_type": "jsonl"}

    def batch_job_body(self, chunk: Chunk) -> dict[str, Any]:
        body = super().batch_job_body(chunk)
        del body["metadata"]  # its jobs have none; the id of the file tells which is which
        return body

    async def agenerate(
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        logit_bias: dict[str, int | float] | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        extra_body: dict[str, Any] | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
    ) -> GenerateOutput:
        """Generate for one chat or raw prompt. `None` is not sent: it means the server's default.

        Args:
            input: the chat, or the raw prompt.
            num_generations: how many generations, in one request if the server gives as many.
            max_new_tokens: how many tokens to generate at most, reasoning included.
            temperature: how evenly the tokens are drawn; 0 takes the likeliest.
            top_p: draw from the likeliest tokens that make up this share.
            stop: texts at which to stop.
            seed: the seed of the draw, as far as the server keeps to it.
            frequency_penalty: how much to avoid tokens for each time that they occurred.
            presence_penalty: how much to avoid tokens that occurred at all.
            logprobs: whether to return the log probabilities of the tokens.
            top_logprobs: how many of the likeliest tokens to return for each position; implies logprobs.
            logit_bias: what to add to the logits of tokens, by token id.
            tools: the tools that the model may call, in the API's form; chats only.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name; chats only.
            response_format: the API's own response format; `structured_output` is the portable way.
            reasoning_effort: how long a reasoning model thinks: `low`, `medium`, `high`, …; chats only.
            extra_body: further fields of the request, as the server knows them; they win over others.
            top_k: draw from this many of the likeliest tokens.
            min_p: draw from the tokens that are at least this share as likely as the likeliest.
            repetition_penalty: how much to avoid tokens that occurred, prompt included; 1 is not at all.
        """
        return await CompatibleLLM._generate(**locals())
