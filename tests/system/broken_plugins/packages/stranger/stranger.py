"""A backend by somebody who has read the contract, and nothing else of Stillhouse."""

from pydantic import Field, SecretStr

from stillhouse import AsyncLLM, GenerationError, RuntimeParameter


class StrangerLLM(AsyncLLM):
    """Says things backwards."""

    capabilities = frozenset({"chat", "raw_prompt", "num_generations"})

    model: str = "reverser"
    api_key: SecretStr | None = Field(default=None, description="Not needed.")
    greeting: RuntimeParameter[str] = Field(default="", description="Said before everything else.")

    _opened: bool = False

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        self._opened = True

    def unload(self) -> None:
        self._opened = False
        super().unload()

    async def agenerate(self, input, num_generations: int = 1, max_new_tokens: int | None = None):
        """Answer backwards.

        Args:
            input: the input.
            num_generations: how many answers.
            max_new_tokens: how many characters at most.
        """
        if not self._opened:
            raise GenerationError("load() was not called", kind="unknown")
        text = input if isinstance(input, str) else input[-1]["content"]
        if text == "fail":
            raise GenerationError("it was asked to", kind="content_filter", hint="ask for something else")
        answer = (self.greeting + text[::-1])[:max_new_tokens]
        return {
            "generations": [answer] * num_generations,
            "statistics": {"input_tokens": [len(text)], "output_tokens": [len(answer)] * num_generations},
            "finish_reasons": ["stop"] * num_generations,
        }
