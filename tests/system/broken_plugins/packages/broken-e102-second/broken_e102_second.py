"""The other of two that claim a name."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    model: str = "fine"

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1):
        return {"generations": ["the second"] * num_generations, "statistics": {}}
