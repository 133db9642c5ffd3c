"""A misspelt hook beside one that is right; neither is taken in."""

import stillhouse


@stillhouse.hookimpl
def after_generate(input):
    raise SystemExit("a hook of a plugin that does not fit was called")


@stillhouse.hookimpl
def before_generation(input):
    return None
