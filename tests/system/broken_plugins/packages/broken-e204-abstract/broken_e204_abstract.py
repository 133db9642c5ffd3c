"""A class that forgot to say its model's name."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    async def agenerate(self, input, num_generations=1):
        return {"generations": ["x"] * num_generations, "statistics": {}}
