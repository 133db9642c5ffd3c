"""A plugin that uses the whole contract."""

from stillhouse_steady.asking import SteadyHTTPLLM
from stillhouse_steady.llms import SteadyAsyncLLM, SteadyLLM

__all__ = ["SteadyAsyncLLM", "SteadyHTTPLLM", "SteadyLLM"]
