"""The generation parameters, and which of them TGI has; `agenerate` documents them."""

from __future__ import annotations

from stillhouse_openai.parameters import ChatParameters

__all__ = ["TGI_CHAT", "TGI_RAW", "EndpointParameters"]


class EndpointParameters(ChatParameters, total=False):
    """Those of inference providers and endpoints; `None` means the server's default."""

    top_k: int | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    watermark: bool | None


_BOTH = {
    "extra_body", "frequency_penalty", "logprobs", "max_new_tokens", "seed", "stop", "temperature",
    "top_logprobs", "top_p",
}  # fmt: skip

TGI_CHAT = frozenset(_BOTH | {"response_format", "tool_choice", "tools"})
"""Those that TGI heeds in a chat. It takes others and does nothing with them, or something else."""

TGI_RAW = frozenset(_BOTH | {"repetition_penalty", "top_k", "typical_p", "watermark"})
"""Those that TGI has for a raw prompt."""
