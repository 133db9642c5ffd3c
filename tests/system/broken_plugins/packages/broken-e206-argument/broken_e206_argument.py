"""A hook that asks for an argument that it is not given."""

import stillhouse


@stillhouse.hookimpl
def before_generate(llm, prompt):
    return None
