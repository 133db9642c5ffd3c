"""Healthy; the tests install it twice."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    model: str = "fine"

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1):
        return {"generations": ["fine"] * num_generations, "statistics": {}}
