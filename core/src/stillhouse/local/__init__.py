"""The common parts of engines on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.local.answers import Answer as Answer
    from stillhouse.local.answers import TokenTexts as TokenTexts
    from stillhouse.local.cuda import CudaDevicePlacementMixin as CudaDevicePlacementMixin
    from stillhouse.local.cuda import visible_devices as visible_devices
    from stillhouse.local.generation import Generation as Generation
    from stillhouse.local.generation import SamplingDefaults as SamplingDefaults
    from stillhouse.local.guides import GUIDE_HEAD as GUIDE_HEAD
    from stillhouse.local.guides import Guide as Guide
    from stillhouse.local.guides import GuideCompiler as GuideCompiler
    from stillhouse.local.guides import Matcher as Matcher
    from stillhouse.local.guides import guide_for as guide_for
    from stillhouse.local.llm import LocalLLM as LocalLLM
    from stillhouse.local.magpie import MAGPIE_PRE_QUERY_TEMPLATES as MAGPIE_PRE_QUERY_TEMPLATES
    from stillhouse.local.magpie import MagpieChatTemplateMixin as MagpieChatTemplateMixin
    from stillhouse.local.outputs import engine_failed as engine_failed
    from stillhouse.local.outputs import merged as merged
    from stillhouse.local.outputs import seed_of as seed_of
    from stillhouse.local.outputs import too_long as too_long
    from stillhouse.local.outputs import unloaded as unloaded
    from stillhouse.local.queue import Job as Job
    from stillhouse.local.queue import JobQueue as JobQueue
    from stillhouse.local.sampling import Sampling as Sampling
    from stillhouse.local.sampling import bias_of as bias_of
    from stillhouse.local.sampling import uniforms as uniforms
    from stillhouse.local.stops import Detokenizer as Detokenizer
    from stillhouse.local.stops import StopTexts as StopTexts
    from stillhouse.local.templates import Prompts as Prompts
    from stillhouse.local.token_llm import TokenEngine as TokenEngine
    from stillhouse.local.token_llm import TokenLLM as TokenLLM
    from stillhouse.local.weights import DEFAULT_MODEL as DEFAULT_MODEL
    from stillhouse.local.weights import default_gguf as default_gguf
    from stillhouse.local.weights import find_model as find_model
    from stillhouse.local.weights import model_name_of as model_name_of
    from stillhouse.local.worker import EngineWorker as EngineWorker

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "answers": ["Answer", "TokenTexts"],
        "cuda": ["CudaDevicePlacementMixin", "visible_devices"],
        "generation": ["Generation", "SamplingDefaults"],
        "guides": ["GUIDE_HEAD", "Guide", "GuideCompiler", "Matcher", "guide_for"],
        "llm": ["LocalLLM"],
        "magpie": ["MAGPIE_PRE_QUERY_TEMPLATES", "MagpieChatTemplateMixin"],
        "outputs": ["engine_failed", "merged", "seed_of", "too_long", "unloaded"],
        "sampling": ["Sampling", "bias_of", "uniforms"],
        "stops": ["Detokenizer", "StopTexts"],
        "templates": ["Prompts"],
        "token_llm": ["TokenEngine", "TokenLLM"],
        "weights": ["DEFAULT_MODEL", "default_gguf", "find_model", "model_name_of"],
        "queue": ["Job", "JobQueue"],
        "worker": ["EngineWorker"],
    },
)
