"""A class whose agenerate would block the loop."""

import stillhouse


class BrokenLLM(stillhouse.AsyncLLM):
    @property
    def model_name(self):
        return "broken"

    def agenerate(self, input, num_generations=1):
        return {"generations": ["x"] * num_generations, "statistics": {}}
