"""The providers and servers that speak OpenAI's API and have a name here: one row each.

The class of a row is made when it is first asked for, so that importing this module stays cheap.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from stillhouse_openai.compatible import efforts
from stillhouse_openai.provider import Provider, provider_class
from stillhouse_openai.schemas import KEYWORDS

if TYPE_CHECKING:
    from stillhouse_openai.provider import ProviderLLM

__all__ = ["CLASSES", "PROVIDERS"]

_SAMPLING = ("top_k", "min_p", "repetition_penalty")
_PENALTIES = ("frequency_penalty", "presence_penalty")
_THINKING = {"none": {"thinking": {"type": "disabled"}}, "high": {"thinking": {"type": "enabled"}}}

PROVIDERS: dict[str, Provider] = {
    "cerebras": Provider(
        class_name="CerebrasLLM",
        about="Open models on Cerebras; chats only, one generation per request.",
        base_url="https://api.cerebras.ai/v1",
        base_url_variable="CEREBRAS_BASE_URL",
        key=("CEREBRAS_API_KEY",),
        capabilities=frozenset({"chat", "json_schema", "logprobs", "seed", "tools"}),
        further=("service_tier",),
        lacking=("logit_bias", *_PENALTIES),
        efforts=efforts("none", "low", "medium", "high"),
        # It refuses these; see https://inference-docs.cerebras.ai/capabilities/structured-outputs.
        schema_keywords=KEYWORDS - {"format", "maxItems", "minItems", "pattern"},
        reasoning_key="reasoning",
    ),
    "dashscope": Provider(
        class_name="DashScopeLLM",
        about="Qwen models on Alibaba's DashScope. The default address is that of Singapore; a key of "
        "another region needs its own `base_url`. `extra_body` takes `enable_thinking`.",
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key=("DASHSCOPE_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "logprobs", "seed", "tools"}),
        further=("top_k", "repetition_penalty"),
        lacking=("logit_bias",),
        efforts={"none": {"enable_thinking": False}, **efforts("low", "medium", "high")},
        json_form="json_object",
        reasoning_key="reasoning_content",
        error_kinds={"data_inspection_failed": "content_filter", "DataInspectionFailed": "content_filter"},
    ),
    "deepinfra": Provider(
        class_name="DeepInfraLLM",
        about="Open models on DeepInfra.",
        base_url="https://api.deepinfra.com/v1/openai",
        key=("DEEPINFRA_API_KEY",),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=_SAMPLING,
        lacking=("logit_bias",),
        efforts=efforts("none", "low", "medium", "high"),
        json_form="json_object",
    ),
    "featherless": Provider(
        class_name="FeatherlessLLM",
        about="Open models on Featherless.",
        base_url="https://api.featherless.ai/v1",
        key=("FEATHERLESS_API_KEY", "FEATHERLESS_AI_API_KEY"),
        capabilities=frozenset({"chat", "json_schema", "raw_prompt", "tools"}),
        further=_SAMPLING,
        lacking=("logit_bias",),
        efforts={},
        json_form="json_object",
    ),
    "fireworks": Provider(
        class_name="FireworksLLM",
        about="Open models on Fireworks AI.",
        base_url="https://api.fireworks.ai/inference/v1",
        base_url_variable="FIREWORKS_BASE_URL",
        key=("FIREWORKS_API_KEY",),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=(*_SAMPLING, "service_tier"),
        efforts=efforts("none", "low", "medium", "high"),
        reasoning_key="reasoning_content",
    ),
    "friendli": Provider(
        class_name="FriendliLLM",
        about="Open models on FriendliAI's serverless endpoints.",
        base_url="https://api.friendli.ai/serverless/v1",
        key=("FRIENDLI_TOKEN", "FRIENDLIAI_API_KEY"),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=_SAMPLING,
    ),
    "github-models": Provider(
        class_name="GitHubModelsLLM",
        about="Models of several makers on GitHub Models, such as `openai/gpt-4.1`. The key is a GitHub "
        "token that may read models.",
        base_url="https://models.github.ai/inference",
        key=("GITHUB_TOKEN",),
        capabilities=frozenset({"chat", "images", "json_schema", "seed", "tools"}),
        lacking=("logit_bias",),
        models_path=None,  # it is not below the address
    ),
    "hyperbolic": Provider(
        class_name="HyperbolicLLM",
        about="Open models on Hyperbolic; chats only.",
        base_url="https://api.hyperbolic.xyz/v1",
        key=("HYPERBOLIC_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "num_generations", "seed", "tools"}),
        further=_SAMPLING,
        lacking=("logit_bias",),
        efforts={},
        json_form="json_object",
    ),
    "lmstudio": Provider(
        class_name="LMStudioLLM",
        about="A model that LM Studio serves on this machine; no key is needed.",
        base_url="http://localhost:1234/v1",
        capabilities=frozenset({"chat", "images", "json_schema", "raw_prompt", "seed", "tools"}),
        further=("top_k", "repetition_penalty"),
        renamed={"repetition_penalty": "repeat_penalty"},
    ),
    "minimax": Provider(
        class_name="MiniMaxLLM",
        about="MiniMax's models. Their reasoning is apart from the text, and `reasoning_details` must be "
        "sent back with tools. A key of China needs `base_url=https://api.minimaxi.com/v1`.",
        base_url="https://api.minimax.io/v1",
        key=("MINIMAX_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "tools"}),
        lacking=("logit_bias", "stop", *_PENALTIES),
        efforts={},
        json_form="prompt",
        always_sent={"reasoning_split": True},
        kept_keys=("reasoning_details",),
        error_kinds={"1026": "content_filter", "1027": "content_filter", "1039": "rate_limit"},
        statuses={
            1001: 504,
            1002: 429,
            1004: 401,
            1008: 402,
            1026: 400,
            1027: 400,
            1039: 429,
            1042: 400,
            2013: 400,
            2049: 401,
        },
    ),
    "moonshot": Provider(
        class_name="MoonshotLLM",
        about="Kimi models of Moonshot AI. A key of China needs `base_url=https://api.moonshot.cn/v1`. "
        "Thinking models fix their temperature; `extra_body` takes `thinking`.",
        base_url="https://api.moonshot.ai/v1",
        key=("MOONSHOT_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "tools"}),
        lacking=("logit_bias",),
        efforts=efforts("low", "high", "max"),
        json_form="json_object",
        reasoning_key="reasoning_content",
    ),
    "nebius": Provider(
        class_name="NebiusLLM",
        about="Open models on Nebius Token Factory.",
        base_url="https://api.tokenfactory.nebius.com/v1",
        key=("NEBIUS_API_KEY",),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=("top_k",),
    ),
    "novita": Provider(
        class_name="NovitaLLM",
        about="Open models on Novita AI.",
        base_url="https://api.novita.ai/openai/v1",
        key=("NOVITA_API_KEY",),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=_SAMPLING,
        efforts={"none": {"enable_thinking": False}, "high": {"enable_thinking": True}},
    ),
    "nvidia-nim": Provider(
        class_name="NvidiaNIMLLM",
        about="Models on NVIDIA's API catalogue, or a NIM of your own at `base_url`; chats only.",
        base_url="https://integrate.api.nvidia.com/v1",
        key=("NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"),
        capabilities=frozenset({"chat", "images", "json_schema", "seed", "tools"}),
        lacking=("logit_bias",),
        json_form="json_object",
    ),
    "perplexity": Provider(
        class_name="PerplexityLLM",
        about="Perplexity's Sonar models, which search the web. Their sources are kept as `citations` and "
        "`search_results`. A chat must alternate between user and assistant after its system message.",
        base_url="https://api.perplexity.ai",
        base_url_variable="PERPLEXITY_BASE_URL",
        key=("PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"),
        capabilities=frozenset({"chat", "images", "json_schema"}),
        lacking=("logit_bias", "stop"),
        efforts=efforts("minimal", "low", "medium", "high"),
        kept_keys=("citations", "search_results"),
        models_path=None,
    ),
    "sambanova": Provider(
        class_name="SambaNovaLLM",
        about="Open models on SambaNova Cloud; chats only, one generation per request.",
        base_url="https://api.sambanova.ai/v1",
        base_url_variable="SAMBANOVA_BASE_URL",
        key=("SAMBANOVA_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "tools"}),
        further=("top_k",),
        lacking=("logit_bias", *_PENALTIES),
        json_form="json_object",
    ),
    "sglang": Provider(
        class_name="SGLangLLM",
        about="A model that an SGLang server serves; the key is that which it was started with, if any.",
        base_url="http://localhost:30000/v1",
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "raw_prompt", "seed", "tools"}
        ),
        further=_SAMPLING,
    ),
    "xai": Provider(
        class_name="XAILLM",
        about="Grok models of xAI; chats only. Reasoning models refuse `stop` and the penalties.",
        base_url="https://api.x.ai/v1",
        key=("XAI_API_KEY",),
        capabilities=frozenset(
            {"chat", "images", "json_schema", "logprobs", "num_generations", "seed", "tools"}
        ),
        lacking=("logit_bias",),
        efforts=efforts("none", "low", "medium", "high"),
    ),
    "zai": Provider(
        class_name="ZaiLLM",
        about="GLM models of Z.ai; chats only, one generation per request. `extra_body` takes `thinking`.",
        base_url="https://api.z.ai/api/paas/v4",
        base_url_variable="ZAI_BASE_URL",
        key=("ZAI_API_KEY",),
        capabilities=frozenset({"chat", "images", "json_schema", "tools"}),
        lacking=("logit_bias", *_PENALTIES),
        efforts=_THINKING,
        json_form="json_object",
        reasoning_key="reasoning_content",
        models_path=None,
        error_kinds={"1301": "content_filter"},
    ),
}
"""The providers by the names of their backends."""

CLASSES: dict[str, str] = {provider.class_name: name for name, provider in PROVIDERS.items()}
"""The names of the classes, and of the row that each is made of."""

_lock = threading.Lock()


def __getattr__(name: str) -> Any:
    """Make the class of a row; it is the same from then on."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _lock:
        cls: type[ProviderLLM] | None = globals().get(name)
        if cls is None:
            cls = globals()[name] = provider_class(PROVIDERS[CLASSES[name]], module=__name__)
    return cls


def __dir__() -> list[str]:
    return sorted({*globals(), *CLASSES})
