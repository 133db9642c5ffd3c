"""Magpie: letting a model write the user's message by ending the prompt where one would begin.

The method is Xu et al., 2024, https://arxiv.org/abs/2406.08464.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from stillhouse._settings.runtime import RuntimeParameter
from stillhouse.typing import StandardInput

__all__ = ["MAGPIE_PRE_QUERY_TEMPLATES", "MagpieChatTemplateMixin"]

MAGPIE_PRE_QUERY_TEMPLATES: dict[str, str] = {
    "llama3": "<|start_header_id|>user<|end_header_id|>\n\n",
    "qwen2": "<|im_start|>user\n",
}
"""What stands before a user's message, by the family of the chat template."""


class MagpieChatTemplateMixin(BaseModel, validate_assignment=True):
    """For backends that render the chat template themselves."""

    use_magpie_template: RuntimeParameter[bool] = Field(
        default=False,
        description="Whether to end the prompt with the pre-query template, for Magpie.",
    )
    magpie_pre_query_template: RuntimeParameter[str] | None = Field(
        default=None,
        description='The pre-query template: "llama3", "qwen2", or a template of your own.',
    )

    @field_validator("magpie_pre_query_template", mode="after")
    @classmethod
    def _resolve_alias(cls, value: str | None) -> str | None:
        return None if value is None else MAGPIE_PRE_QUERY_TEMPLATES.get(value, value)

    @model_validator(mode="after")
    def _has_template(self) -> Self:
        if self.use_magpie_template and self.magpie_pre_query_template is None:
            raise ValueError(
                "use_magpie_template needs magpie_pre_query_template: "
                f"{', '.join(MAGPIE_PRE_QUERY_TEMPLATES)}, or a template of your own"
            )
        return self

    def apply_magpie_pre_query_template(self, prompt: str, input: StandardInput | list[Any]) -> str:
        """The prompt, followed by the pre-query template where the next message is the user's.

        Args:
            prompt: the chat, rendered with its template.
            input: the chat. If its last message is the user's, or Magpie is off, the prompt stays.
        """
        if not self.use_magpie_template or (input and input[-1]["role"] == "user"):
            return prompt
        return prompt + (self.magpie_pre_query_template or "")
