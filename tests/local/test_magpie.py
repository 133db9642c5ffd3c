"""The pre-query template of Magpie."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stillhouse import LLM, MagpieChatTemplateMixin
from stillhouse.local.magpie import MAGPIE_PRE_QUERY_TEMPLATES

from ..support import SyncLLM, chat

SYSTEM: Any = [{"role": "system", "content": "You are kind."}]


class After(SyncLLM, MagpieChatTemplateMixin):
    pass


class Before(MagpieChatTemplateMixin, SyncLLM):
    pass


BOTH = pytest.mark.parametrize("kind", [After, Before])


@BOTH
@pytest.mark.parametrize("alias", ["llama3", "qwen2"])
def test_an_alias_is_resolved(kind: Any, alias: str) -> None:
    llm = kind(use_magpie_template=True, magpie_pre_query_template=alias)
    assert llm.magpie_pre_query_template == MAGPIE_PRE_QUERY_TEMPLATES[alias]
    assert (
        llm.apply_magpie_pre_query_template("prompt|", SYSTEM)
        == f"prompt|{MAGPIE_PRE_QUERY_TEMPLATES[alias]}"
    )
    llm.magpie_pre_query_template = "<user>"
    assert llm.apply_magpie_pre_query_template("prompt|", SYSTEM) == "prompt|<user>"


def test_the_templates_are_those_of_the_models() -> None:
    assert MAGPIE_PRE_QUERY_TEMPLATES == {
        "llama3": "<|start_header_id|>user<|end_header_id|>\n\n",
        "qwen2": "<|im_start|>user\n",
    }


@BOTH
def test_the_template_follows_unless_the_last_message_is_the_users(kind: Any) -> None:
    llm = kind(use_magpie_template=True, magpie_pre_query_template="<user>")
    assert llm.apply_magpie_pre_query_template("p", []) == "p<user>"
    assert (
        llm.apply_magpie_pre_query_template("p", [*chat(), {"role": "assistant", "content": "x"}])
        == "p<user>"
    )
    assert llm.apply_magpie_pre_query_template("p", [*SYSTEM, *chat()]) == "p"


@BOTH
def test_disabled_magpie_template_leaves_the_prompt_unchanged(kind: Any) -> None:
    assert kind(magpie_pre_query_template="<user>").apply_magpie_pre_query_template("p", SYSTEM) == "p"
    assert kind().apply_magpie_pre_query_template("p", SYSTEM) == "p"


@BOTH
def test_magpie_cannot_be_enabled_without_a_template(kind: Any) -> None:
    with pytest.raises(ValidationError, match="needs magpie_pre_query_template: llama3, qwen2"):
        kind(use_magpie_template=True)
    llm = kind()
    with pytest.raises(ValidationError, match="magpie_pre_query_template"):
        llm.use_magpie_template = True
    assert not llm.use_magpie_template
    llm.magpie_pre_query_template = "llama3"
    llm.use_magpie_template = True
    with pytest.raises(ValidationError, match="magpie_pre_query_template"):
        llm.magpie_pre_query_template = None
    assert llm.magpie_pre_query_template


@BOTH
def test_magpie_fields_are_runtime_parameters(kind: Any) -> None:
    names = kind().runtime_parameters_names
    assert names["use_magpie_template"] is True
    assert names["magpie_pre_query_template"] is True


def test_magpie_mixin_validates_to_the_model_itself() -> None:
    data = {"use_magpie_template": True, "magpie_pre_query_template": "llama3"}
    assert isinstance(After.model_validate(data), LLM)
    assert issubclass(MagpieChatTemplateMixin, BaseModel)
