"""Stands for a plugin that imports a heavy library at its top."""

import time

import stillhouse

time.sleep(0.55)


class BrokenLLM(stillhouse.AsyncLLM):
    model: str = "slow to import"

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1):
        return {"generations": ["slow but sound"] * num_generations, "statistics": {}}
