"""A key that a repr, a log or a saved file would show."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    model: str = "broken"
    api_key: str = ""

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1):
        return {"generations": ["x"] * num_generations, "statistics": {}}
