"""`ClientvLLM`: a vLLM server."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from stillhouse import Capability, FormattedInput, GenerateOutput, StructuredOutput
from stillhouse.structured import check_schema
from stillhouse_openai.compatible import CompatibleLLM
from stillhouse_openai.parameters import VLLMParameters

__all__ = ["ClientvLLM"]


class ClientvLLM(CompatibleLLM):
    """A model on a vLLM server, with vLLM's own parameters and structured outputs.

    `base_url` is the server's address, such as `http://localhost:8000/v1`; the key is the one that the
    server was started with, if any. Structured outputs require vLLM 0.11 or newer; they also work for raw
    prompts.
    """

    capabilities: ClassVar[frozenset[Capability]] = CompatibleLLM.capabilities | {"choice", "regex"}

    base_path: ClassVar[str] = "v1"
    api_key_variable: ClassVar[str | None] = "VLLM_API_KEY"
    api_key_required: ClassVar[bool] = False

    raw_forms: ClassVar[bool] = True

    # vLLM chooses a grammar engine that takes the schema, in the end LLGuidance, which has these.
    schema_keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum",
            "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength",
            "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
            "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type",
        }
    )  # fmt: skip

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        kind, schema = structured_output["format"], structured_output["schema"]
        if kind == "json":
            check_schema(schema, cls.schema_keywords, cls.__name__)
        wanted: dict[str, Any] = {kind: schema}
        if structured_output.get("whitespace_pattern"):
            wanted["whitespace_pattern"] = structured_output["whitespace_pattern"]
        return {"structured_outputs": wanted}

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[VLLMParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with further parameters.

        Args:
            top_k: sample from this many most likely tokens.
            min_p: sample from tokens with at least this fraction of the most likely token's probability.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none.
            min_tokens: minimum number of tokens to generate.
            stop_token_ids: ids of tokens that end the generation.
            include_stop_str_in_output: whether to keep the text that ended the generation.
            ignore_eos: whether to continue after the end-of-text token.
            skip_special_tokens: whether to leave special tokens out of the text.
            bad_words: words that must not be generated.
            truncate_prompt_tokens: number of tokens to keep from the end of the prompt.
            priority: priority of the request, if the server schedules by priority; lower is earlier.
            chat_template_kwargs: variables of the chat template; chats only.
        """
        return await self.complete(input, num_generations, arguments)
