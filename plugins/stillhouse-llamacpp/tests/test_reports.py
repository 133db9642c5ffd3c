"""What people reported of engines on their machines, replayed on this one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from local_reports import STRICT, LocalEngineReports, said
from small_models import CHATML, gguf_of, tiny_model

from stillhouse import AsyncLLM
from stillhouse_llamacpp import LlamaCppLLM


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed")
class TestReports(LocalEngineReports):
    begins_chats = True
    merges_system = True

    def make(self, model: Path, **fields: Any) -> AsyncLLM:
        # The fused kernels round by what is in the batch; the README says so.
        fields = {"parallel": 8, "n_ctx": 512, "n_threads": 1, "flash_attention": False, **fields}
        return LlamaCppLLM(model=str(gguf_of(model)), **fields)

    def test_a_system_message_that_the_template_refuses_is_in_the_users_first_one(self, model: Path) -> None:
        chat = [{"role": "system", "content": "Be brief."}, *said("Hi")]
        with self.make(model, chat_template=STRICT) as llm:
            assert isinstance(llm, LlamaCppLLM)
            prompt = llm.prompt_text(chat)
        assert prompt.startswith("<|im_start|>user\nBe brief.")
        assert "Hi<|im_end|>" in prompt

    def test_a_text_begins_once_though_the_template_begins_it_too(self, tmp_path: Path) -> None:
        counts = []
        for template in (CHATML, "{{ bos_token }}" + CHATML):
            with self.make(tiny_model(tmp_path / "adding", bos=True), chat_template=template) as llm:
                output = llm.generate_outputs([said("Hi")], max_new_tokens=1)[0]
                counts.append(output["statistics"]["input_tokens"])
        assert counts[0] == counts[1]
