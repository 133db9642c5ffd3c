"""Reasoning where servers have it in places of their own: in the text, or in a list of parts."""

from __future__ import annotations

from typing import Any

from stillhouse import GenerateOutput

__all__ = ["detailed", "without_thoughts"]


def without_thoughts(output: GenerateOutput, tag: str) -> GenerateOutput:
    """Take the reasoning out of texts that begin with it, up to the first closing tag.

    Chat templates often write the opening tag, so that only the closing one is in the text. A text in which
    either tag is quoted stays as it is.

    Args:
        output: the output, which is changed.
        tag: such as `think`.
    """
    texts = output["generations"]
    reasoning = list(output.get("reasoning") or [None] * len(texts))
    for place, text in enumerate(texts):
        if not text or reasoning[place]:
            continue
        thought, is_closed, rest = text.partition(f"</{tag}>")
        before, is_opened, inside = thought.partition(f"<{tag}>")
        if is_opened and not before.strip():
            thought = inside
        elif is_opened or not is_closed:  # it is quoted, or there is none
            continue
        texts[place], reasoning[place] = rest.strip() or None, thought.strip() or None
    if any(reasoning):
        output["reasoning"] = reasoning
    return output


def detailed(details: Any) -> str | None:
    """The reasoning in OpenRouter's and MiniMax's list of its parts."""
    texts = [
        part.get("text") or part.get("summary")
        for part in (details if isinstance(details, list) else ())
        if isinstance(part, dict)
    ]
    return "".join(text for text in texts if isinstance(text, str)) or None
