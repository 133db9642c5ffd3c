"""`GroqLLM`: open models on Groq."""

from __future__ import annotations

from typing import ClassVar, Unpack

from pydantic import PrivateAttr

from stillhouse import Capability, FormattedInput, GenerateOutput
from stillhouse.http.batches import BatchLimits
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.parameters import GroqParameters

__all__ = ["GroqLLM"]


class GroqLLM(FileBatchLLM):
    """Open models on Groq: chats only, one generation per request.

    The environment variables are those of Groq's SDK, whose base URL is only the host.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"chat", "images", "json_schema", "offline_batch", "seed", "tools"}
    )

    default_base_url: ClassVar[str | None] = "https://api.groq.com/openai/v1"
    base_url_variable: ClassVar[str | None] = "GROQ_BASE_URL"
    base_path: ClassVar[str] = "openai/v1"
    has_plain_contents: ClassVar[bool] = True
    api_key_variable: ClassVar[str | None] = "GROQ_API_KEY"

    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=50_000, bytes=100_000_000)
    batch_endpoints: ClassVar[dict[str, str]] = {"chat/completions": "/v1/chat/completions"}

    _num_generations_param_supported: bool = PrivateAttr(default=False)

    async def agenerate(  # type: ignore[override]  # the API has fewer parameters
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[GroqParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with a further parameter.

        Args:
            service_tier: the service tier, such as `flex` or `auto`.
        """
        return await self.complete(input, num_generations, arguments)
