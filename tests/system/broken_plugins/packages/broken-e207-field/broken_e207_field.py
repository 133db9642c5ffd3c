"""A client among the fields, where no file can hold it."""

import stillhouse


class Client:
    pass


class BrokenLLM(stillhouse.AsyncLLM):
    model: str = "broken"
    client: Client = Client()

    @property
    def model_name(self):
        return self.model

    async def agenerate(self, input, num_generations=1):
        return {"generations": ["x"] * num_generations, "statistics": {}}
