"""A class that has the methods and not the base."""


class BrokenLLM:
    def generate(self, inputs, num_generations=1):
        return []
