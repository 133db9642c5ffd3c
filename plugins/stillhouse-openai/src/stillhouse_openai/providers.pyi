"""The classes of the table of providers, which are made when they are asked for."""

from stillhouse_openai.provider import Provider, ProviderLLM

CLASSES: dict[str, str]
PROVIDERS: dict[str, Provider]

class CerebrasLLM(ProviderLLM):
    """Open models on Cerebras; chats only, one generation per request."""

class DashScopeLLM(ProviderLLM):
    """Qwen models on Alibaba's DashScope."""

class DeepInfraLLM(ProviderLLM):
    """Open models on DeepInfra."""

class FeatherlessLLM(ProviderLLM):
    """Open models on Featherless."""

class FireworksLLM(ProviderLLM):
    """Open models on Fireworks AI."""

class FriendliLLM(ProviderLLM):
    """Open models on FriendliAI's serverless endpoints."""

class GitHubModelsLLM(ProviderLLM):
    """Models of several makers on GitHub Models, such as `openai/gpt-4.1`."""

class HyperbolicLLM(ProviderLLM):
    """Open models on Hyperbolic; chats only."""

class LMStudioLLM(ProviderLLM):
    """A model that LM Studio serves on this machine; no key is needed."""

class MiniMaxLLM(ProviderLLM):
    """MiniMax's models."""

class MoonshotLLM(ProviderLLM):
    """Kimi models of Moonshot AI."""

class NebiusLLM(ProviderLLM):
    """Open models on Nebius Token Factory."""

class NovitaLLM(ProviderLLM):
    """Open models on Novita AI."""

class NvidiaNIMLLM(ProviderLLM):
    """Models on NVIDIA's API catalogue, or a NIM of your own at `base_url`; chats only."""

class PerplexityLLM(ProviderLLM):
    """Perplexity's Sonar models, which search the web."""

class SambaNovaLLM(ProviderLLM):
    """Open models on SambaNova Cloud; chats only, one generation per request."""

class SGLangLLM(ProviderLLM):
    """A model that an SGLang server serves; the key is that which it was started with, if any."""

class XAILLM(ProviderLLM):
    """Grok models of xAI; chats only."""

class ZaiLLM(ProviderLLM):
    """GLM models of Z.ai; chats only, one generation per request."""
