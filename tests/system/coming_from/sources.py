"""Seven classes as people write them for distilabel 1.3 to 1.5, with distilabel's import lines.

Nothing of Stillhouse is in them: `translate` changes their import lines by the table in docs/from-distilabel.md,
and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["SOURCES", "TABLE", "translate"]

PAGE = Path(__file__).parents[3] / "docs" / "from-distilabel.md"


def _read_table() -> dict[str, tuple[list[str], str]]:
    """Each name of distilabel: the modules that have it, and what to import instead."""
    text = PAGE.read_text(encoding="utf-8").partition("## Import lines")[2].partition("\n## ")[0]
    table: dict[str, tuple[list[str], str]] = {}
    modules: list[str] = []
    for name, where, here in re.findall(r"^\| `(\w+)` \| ([^|]+) \| `([\w.]+)` \|$", text, re.M):
        modules = modules if where == "the same" else re.findall(r"`([\w.]+)`", where)
        table[name] = (modules, here)
    return table


TABLE = _read_table()

_IMPORT = re.compile(r"^( *)from (distilabel[\w.]*) import (?:\(([^)]*)\)|(.*))$", re.M)


def translate(source: str) -> str:
    """Change the import lines of a class written for distilabel, by the table of the page."""

    def replace(found: re.Match[str]) -> str:
        indent, module, several, one = found.groups()
        lines = []
        for item in re.split(r"\s*,\s*", (several or one).strip().rstrip(",")):
            name, _, alias = item.partition(" as ")
            modules, here = TABLE[name]
            assert module in modules, f"the table does not say that {name} is in {module}"
            home, _, new = here.rpartition(".")
            as_old = alias or name
            lines.append(f"{indent}from {home} import {new}" + (f" as {as_old}" if as_old != new else ""))
        return "\n".join(lines)

    return _IMPORT.sub(replace, source)


# A server's client: an AsyncLLM, its own environment variables, a secret, a client made in load().
CLIENT = '''
import os
from typing import TYPE_CHECKING, Any, List, Optional

from pydantic import Field, PrivateAttr, SecretStr, validate_call

from distilabel.llms.base import AsyncLLM
from distilabel.llms.typing import GenerateOutput
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps.tasks.typing import FormattedInput, InstructorStructuredOutputType

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from distilabel.llms.typing import LLMStatistics

_KEY = "SMALLTALK_API_KEY"


class SmallTalkLLM(AsyncLLM):
    """Talks to the server of SmallTalk.

    Attributes:
        model: the model's name.
        base_url: where the server is.
    """

    model: str
    base_url: Optional[RuntimeParameter[str]] = Field(
        default_factory=lambda: os.getenv("SMALLTALK_BASE_URL", "http://127.0.0.1:1/v1"),
        description="Where the server is.",
    )
    api_key: Optional[RuntimeParameter[SecretStr]] = Field(
        default_factory=lambda: os.getenv(_KEY), description="The key."
    )
    timeout: RuntimeParameter[int] = Field(default=20, description="Seconds for a request.")
    structured_output: Optional[RuntimeParameter[InstructorStructuredOutputType]] = Field(
        default=None, description="The form of the answers."
    )

    _api_key_env_var: str = PrivateAttr(_KEY)
    _session: Optional["ClientSession"] = PrivateAttr(...)

    def load(self) -> None:
        super().load()
        if self.api_key is None:
            raise ValueError(f"set {self._api_key_env_var}")
        self._session = None

    @property
    def model_name(self) -> str:
        return self.model

    @validate_call
    async def agenerate(  # type: ignore
        self,
        input: FormattedInput,
        num_generations: int = 1,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        stop: Optional[List[str]] = None,
    ) -> GenerateOutput:
        """Generates `num_generations` responses.

        Args:
            input: a chat.
            num_generations: the number of responses.
            max_new_tokens: the maximum of new tokens.
            temperature: how daring it is.
            stop: where to stop.
        """
        import aiohttp

        if isinstance(input, tuple):
            input, _ = input
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self.api_key.get_secret_value()}"},
                timeout=aiohttp.ClientTimeout(self.timeout),
            )
        body = {"model": self.model, "messages": input, "n": num_generations, "max_tokens": max_new_tokens}
        async with self._session.post(f"{self.base_url}/chat/completions", json=body) as response:
            completion = await response.json()
        texts = []
        for choice in completion["choices"]:
            content = choice["message"]["content"]
            if content is None:
                self._logger.warning("there is no text")
            texts.append(content)
        return {"generations": texts, "statistics": self._statistics(completion)}

    def unload(self) -> None:
        import asyncio

        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self.event_loop).result()
            self._session = None
        super().unload()

    @staticmethod
    def _statistics(completion: Any) -> "LLMStatistics":
        usage = completion["usage"]
        return {"input_tokens": [usage["prompt_tokens"]], "output_tokens": [usage["completion_tokens"]]}
'''

# One that answers once a call, and says so without an annotation.
SINGLE = """
import asyncio
from typing import Any, Optional

from pydantic import PrivateAttr, validate_call

from distilabel.models.llms.base import AsyncLLM
from distilabel.models.llms.utils import compute_tokens, prepare_output
from distilabel.steps.base import RuntimeParameter
from distilabel.typing import ChatType, GenerateOutput


class _Words:
    def encode(self, text):
        return text.split()


class SingleLLM(AsyncLLM):
    model: str = "single"
    delay: Optional[RuntimeParameter[float]] = 0.0

    _num_generations_param_supported = False
    _model_name: Optional[str] = PrivateAttr(default=None)
    _semaphore: Any = PrivateAttr(default=None)

    def load(self) -> None:
        super().load()
        self._model_name = f"{self.model}-loaded"

    @property
    def model_name(self) -> Optional[str]:
        return self._model_name

    @validate_call
    async def agenerate(
        self, input: ChatType, seed: Optional[int] = None, temperature: float = 1.0
    ) -> GenerateOutput:
        if self._semaphore is None:
            self._semaphore = asyncio.Semaphore(2)
        async with self._semaphore:
            await asyncio.sleep(self.delay)
        text = f"{input[-1]['content']} {seed}"
        return prepare_output(
            [text],
            input_tokens=[compute_tokens(input, _Words())],
            output_tokens=[compute_tokens(text, _Words())],
        )
"""

# The smallest that a test has: no super().load(), types for the checker alone.
DUMMY = """
from typing import TYPE_CHECKING, Any, List

from distilabel.models.llms import AsyncLLM

if TYPE_CHECKING:
    from distilabel.typing import FormattedInput, GenerateOutput


class DummyAsyncLLM(AsyncLLM):
    structured_output: Any = None

    def load(self) -> None:
        pass

    @property
    def model_name(self) -> str:
        return "test"

    async def agenerate(  # type: ignore
        self, input: "FormattedInput", num_generations: int = 1
    ) -> "GenerateOutput":
        return {"generations": ["output" for _ in range(num_generations)], "statistics": {}}
"""

# An engine in this process: a batch a call, its own loading and unloading.
ENGINE = """
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from pydantic import Field, FilePath, PrivateAttr, model_validator, validate_call

from distilabel.llms.base import LLM
from distilabel.llms.utils import prepare_output
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps.tasks.typing import FormattedInput, OutlinesStructuredOutputType, StandardInput
from distilabel.models.llms.typing import GenerateOutput, LLMLogprobs, LLMOutput


class EngineLLM(LLM):
    model_path: RuntimeParameter[FilePath] = Field(
        default=None, description="The path of the weights.", exclude=True
    )
    n_ctx: int = 512
    extra_kwargs: Optional[RuntimeParameter[Dict[str, Any]]] = Field(
        default_factory=dict, description="Whatever else the engine takes."
    )
    structured_output: Optional[RuntimeParameter[OutlinesStructuredOutputType]] = Field(default=None)

    _engine: Optional[Any] = PrivateAttr(...)

    @model_validator(mode="after")
    def _some_context(self) -> "EngineLLM":
        if self.n_ctx < 1:
            raise ValueError("n_ctx must be positive")
        return self

    def load(self) -> None:
        self._engine = Path(self.model_path).read_text().strip()
        super().load()

    def unload(self) -> None:
        self._engine = None
        super().unload()

    @property
    def model_name(self) -> str:
        return Path(self.model_path).name

    def _one(self, input: Union[StandardInput, str]) -> str:
        return f"{self._engine}: {input if isinstance(input, str) else input[-1]['content']}"

    @validate_call
    def generate(  # type: ignore
        self,
        inputs: List[FormattedInput],
        num_generations: int = 1,
        max_new_tokens: int = 128,
        temperature: float = 1.0,
        logprobs: bool = False,
    ) -> List[GenerateOutput]:
        results = []
        for input in inputs:
            if isinstance(input, tuple):
                input, _ = input
            texts: LLMOutput = []
            candidates: LLMLogprobs = []
            for _ in range(num_generations):
                texts.append(self._one(input)[:max_new_tokens])
                candidates.append([[{"token": "a", "logprob": -0.5}]])
            results.append(
                prepare_output(texts, input_tokens=[1] * num_generations, output_tokens=[2] * num_generations,
                               logprobs=candidates if logprobs else None)
            )
        return results
"""

# An engine on GPUs, with both mixins, each called by its name.
GPU = """
from typing import List, Optional

from pydantic import PrivateAttr, validate_call

from distilabel.models.llms.base import LLM
from distilabel.models.llms.utils import prepare_output
from distilabel.models.mixins.cuda_device_placement import CudaDevicePlacementMixin
from distilabel.models.mixins.magpie import MagpieChatTemplateMixin
from distilabel.typing import GenerateOutput, StandardInput


class GpuLLM(LLM, MagpieChatTemplateMixin, CudaDevicePlacementMixin):
    model: str

    _pipeline: Optional[list] = PrivateAttr(None)

    def load(self) -> None:
        super().load()
        CudaDevicePlacementMixin.load(self)
        self._logger.debug("the devices are taken")
        self._pipeline = []

    def unload(self) -> None:
        self._pipeline = None
        CudaDevicePlacementMixin.unload(self)
        super().unload()

    @property
    def model_name(self) -> str:
        return self.model

    def prepare_input(self, input: "StandardInput") -> str:
        prompt = "".join(f"<{message['role']}>{message['content']}" for message in input)
        return super().apply_magpie_pre_query_template(prompt, input)

    @validate_call
    def generate(
        self, inputs: List[StandardInput], num_generations: int = 1, max_new_tokens: int = 128
    ) -> List[GenerateOutput]:
        return [prepare_output([self.prepare_input(input)] * num_generations) for input in inputs]
"""

# An LLM that is made of others.
COMPOSITE = '''
from typing import TYPE_CHECKING, Any, Dict, List

from pydantic import Field

from distilabel.llms import LLM, AsyncLLM
from distilabel.steps.tasks.typing import StandardInput

if TYPE_CHECKING:
    from distilabel.llms.typing import GenerateOutput
    from distilabel.steps.tasks.typing import FormattedInput


class LongestLLM(LLM):
    """The longest of the answers of several LLMs."""

    llms: List[LLM] = Field(default_factory=list)

    def load(self) -> None:
        super().load()
        for llm in self.llms:
            llm.load()

    def unload(self) -> None:
        for llm in self.llms:
            llm.unload()
        super().unload()

    @property
    def model_name(self) -> str:
        return "longest-of-" + "-".join(llm.model_name for llm in self.llms)

    def get_generation_kwargs(self) -> Dict[str, Any]:
        return {}

    def generate(
        self, inputs: List["FormattedInput"], num_generations: int = 1, **kwargs: Any
    ) -> List["GenerateOutput"]:
        answers = [llm.generate_outputs(inputs=inputs, num_generations=num_generations) for llm in self.llms]
        return [max(outputs, key=lambda output: len(output["generations"][0])) for outputs in zip(*answers)]
'''

# An offline batch, with distilabel's own exceptions and a mixin of settings.
BATCH = """
from typing import Any, Dict, List, Optional, Union

from pydantic import PrivateAttr

from distilabel.errors import DistilabelUserError
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.mixins.runtime_parameters import RuntimeParameter, RuntimeParametersMixin
from distilabel.models import LLM, GenerateOutput
from distilabel.typing import (
    FormattedInput,
    LLMStatistics,
    Logprob,
    StructuredOutputType,
    TextContent,
    TokenCount,
)


class Limits(RuntimeParametersMixin):
    rows: RuntimeParameter[int] = 10


class BatchLLM(LLM):
    model: str = "batch"
    limits: Limits = Limits()

    _jobs: Dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def model_name(self) -> str:
        return self.model

    def generate(self, inputs: List[FormattedInput], num_generations: int = 1) -> List[GenerateOutput]:
        counts: TokenCount = {"input_tokens": [1], "output_tokens": [1]}
        statistics: LLMStatistics = {**counts, "seconds": [0.5]}
        return [{"generations": ["online"] * num_generations, "statistics": statistics} for _ in inputs]

    def offline_batch_generate(
        self, inputs: Union[List[FormattedInput], None] = None, num_generations: int = 1, **kwargs: Any
    ) -> List[GenerateOutput]:
        if inputs and len(inputs) > self.limits.rows:
            raise DistilabelUserError("there are too many rows")
        if not self.jobs_ids:
            self._jobs["job-1"] = inputs
            self.jobs_ids = ("job-1",)
            raise DistilabelOfflineBatchGenerationNotFinishedException(jobs_ids=self.jobs_ids)
        return [{"generations": ["offline"], "statistics": {}} for _ in self._jobs["job-1"]]
"""

SOURCES = {
    "client": CLIENT,
    "single": SINGLE,
    "dummy": DUMMY,
    "engine": ENGINE,
    "gpu": GPU,
    "composite": COMPOSITE,
    "batch": BATCH,
}
