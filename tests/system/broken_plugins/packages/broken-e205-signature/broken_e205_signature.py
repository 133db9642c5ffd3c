"""A class whose agenerate cannot be asked for several generations."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    @property
    def model_name(self):
        return "broken"

    async def agenerate(self, input, temperature: float = 1.0):
        return {"generations": ["x"], "statistics": {}}
