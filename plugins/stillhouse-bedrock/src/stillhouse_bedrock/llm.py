"""`BedrockLLM`: the Converse API."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack
from urllib.parse import quote

import orjson
from pydantic import Field, PrivateAttr, SecretStr

from stillhouse import (
    Capability,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    RuntimeParameter,
    StructuredOutput,
)
from stillhouse.http import Failure, QuotaHeaders, Request, StructuredHTTPLLM, Upload
from stillhouse.structured import closed_schema, json_schema_of
from stillhouse.typing import ModelInfo
from stillhouse_bedrock.body import check_given, request_body
from stillhouse_bedrock.credentials import Credentials, read_profile
from stillhouse_bedrock.failures import bedrock_failure, is_expired
from stillhouse_bedrock.frames import FrameReader
from stillhouse_bedrock.keys import Keys, find_credentials
from stillhouse_bedrock.models import models_in, page_after
from stillhouse_bedrock.parameters import ConverseParameters
from stillhouse_bedrock.regions import host_of, region_of_arn
from stillhouse_bedrock.signing import signed_headers
from stillhouse_bedrock.streams import answer_of_events, piece_of_event
from stillhouse_bedrock.wire import converse_output

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["BedrockLLM"]


class BedrockLLM(StructuredHTTPLLM):
    """Models on Amazon Bedrock; `model` is the id or the ARN of a model or of an inference profile.

    Requests are authorised by a Bedrock API key, or signed with AWS credentials. These come from the fields,
    the provider, the environment or a profile. Roles, SSO, processes and machines require botocore, which
    the extra `aws` installs. Each generation is a separate request.

    `input_tokens` counts the whole input, including tokens read from the cache (`cached_tokens`) and
    written to it (`cache_creation_tokens`). `output_tokens` includes the reasoning.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "images", "json_schema", "tools"})

    base_url_variable: ClassVar[str | None] = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"
    api_key_variable: ClassVar[str | None] = "AWS_BEARER_TOKEN_BEDROCK"
    other_credentials: ClassVar[str] = (
        "AWS credentials (an access key, a profile, or with stillhouse-bedrock[aws] a role)"
    )
    quota_headers: ClassVar[tuple[QuotaHeaders, ...]] = ()
    models_path: ClassVar[str | tuple[str, ...] | None] = ("foundation-models", "inference-profiles")

    region: RuntimeParameter[str] | None = Field(
        default=None,
        description="The region; None takes it from the model's ARN, AWS_REGION, AWS_DEFAULT_REGION, or the "
        "profile.",
    )
    profile: RuntimeParameter[str] | None = Field(
        default=None, description="The profile in the AWS config files; AWS_PROFILE or default if None."
    )
    aws_access_key_id: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The access key to sign with; from the environment or a profile if None."
    )
    aws_secret_access_key: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The secret of the access key."
    )
    aws_session_token: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="The session token of temporary credentials."
    )
    credentials_provider: Callable[[], Any | Awaitable[Any]] | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="A function that returns AWS credentials, called at most once a minute; it is not saved.",
    )
    prompt_caching: bool = Field(
        default=False,
        description="Whether to cache the system prompt, the tools and the conversation.",
    )

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _keys: Keys | None = PrivateAttr(default=None)
    _region: str = PrivateAttr(default="")

    def load(self) -> None:
        self._keys = None
        self._region = self._find_region()
        super().load()

    def unload(self) -> None:
        super().unload()
        self._keys = None

    def _find_region(self) -> str:
        variables = (os.environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION"))
        found = self.region or region_of_arn(self.model) or next(filter(None, variables), "")
        return (found or read_profile(self.profile).region).strip()

    def configured_base_url(self) -> str | None:
        given = super().configured_base_url()
        if given:
            return given
        region = self._find_region()
        if not region:
            raise ConfigurationError(
                f"{type(self).__name__} requires a region",
                hint="set region, or the environment variable AWS_REGION",
            )
        return f"https://{host_of(region)}"

    def url_of(self, base_url: URL, path: str) -> URL:
        host = base_url.raw_host or ""
        if not path.startswith("model/") and host.startswith("bedrock-runtime"):
            base_url = base_url.with_host(host.replace("-runtime", "", 1))  # which does all but run models
        return super().url_of(base_url, path)

    # How a request is authorised

    def auth_headers(self, api_key: str) -> dict[str, str]:
        given = self.aws_access_key_id or self.credentials_provider or self.profile
        return {} if given and self.api_key is None else super().auth_headers(api_key)

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        if any(headers.get(name) for name in self.credential_headers):
            return True
        if not self._region:
            raise ConfigurationError(
                f"{type(self).__name__} requires the region that requests are signed for",
                hint="set region, or the environment variable AWS_REGION",
            )
        keys = Keys(self._find_credentials, self.credentials_provider)
        if not keys.exist():
            return False
        self._keys = keys
        return True

    def _find_credentials(self) -> Any:
        key, secret, token = (
            "" if value is None else value.get_secret_value().strip()
            for value in (self.aws_access_key_id, self.aws_secret_access_key, self.aws_session_token)
        )
        if bool(key) != bool(secret):
            raise ConfigurationError(
                "only one of aws_access_key_id and aws_secret_access_key is set",
                hint="set both, or neither",
            )
        return Credentials(key, secret, token) if key else find_credentials(self.profile)

    async def authorize(self) -> Mapping[str, str]:
        if self._keys is not None:
            await self._keys.renew()
        return {}

    def sign(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | Upload
    ) -> Mapping[str, str]:
        keys = self._keys
        if keys is None:
            return {}
        assert isinstance(body, bytes)
        return signed_headers(keys.use(), self._region, method, url, headers, body)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = bedrock_failure(status, headers, body)
        keys = self._keys
        if keys is not None and is_expired(status, headers, body) and keys.renewable():
            return replace(failure, retried=True, stops_run=False)
        return failure

    # What there is

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        return models_in(answer)

    def models_page_after(self, answer: Any) -> Mapping[str, str | int] | None:
        return page_after(answer)

    # What is asked, and what comes back

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = super().check_arguments(arguments)
        check_given(checked, type(self).__name__)
        return checked

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        hint = "ask for JSON, with an enum for a choice or a pattern for a regex"
        given = json_schema_of(structured_output, cls.__name__, hint)
        schema = orjson.dumps(closed_schema(given, cls.__name__)).decode()
        structure = {"jsonSchema": {"schema": schema}}
        return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}}}

    async def agenerate(
        self, input: FormattedInput, **arguments: Unpack[ConverseParameters]
    ) -> GenerateOutput:
        """Generate once for one chat. `None` is not sent: it means the model's default.

        Args:
            input: the chat.
            max_new_tokens: maximum number of tokens to generate, including reasoning. `None` is the model's
                maximum, and AWS reserves that much of the token quota until the request is answered.
            temperature: sampling temperature, from 0 to 1.
            top_p: sample from the most likely tokens with this total probability.
            top_k: sample from this many most likely tokens. It is sent under this name, which models of
                Anthropic and Mistral use.
            stop: texts that end the generation.
            tools: the tools that the model may call, in OpenAI's formatat or the API's.
            tool_choice: which tool to call: `auto`, `none`, `required`, or one by name.
            reasoning_effort: how much effort to spend on the answer: `low`, `medium`, `high` or `max`.
            thinking: how Claude thinks before it answers, such as `{"type": "enabled", "budget_tokens":
                2048}`. The text is returned as `reasoning`.
            guardrail_config: the guardrail to apply to the chat, in the API's format.
            performance_config: in the API's format, such as `{"latency": "optimized"}`.
            service_tier: `priority`, `default`, `flex` or `reserved`.
            request_metadata: up to 16 named texts for AWS's request log.
            extra_body: further fields of the request, in the API's format; objects are merged.

        Raises:
            GenerationError: it failed; `kind` says how. With a `structured_output`, `truncated` if the
                answer was cut off, and `schema` if it does not validate.
        """
        return await self.complete(input, 1, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        chat, form = self.split(input)
        body = request_body(
            chat, form, arguments, llm=type(self).__name__, prompt_caching=self.prompt_caching
        )
        return Request(f"model/{quote(self.model, safe='')}/converse", body, form)

    def stream_request_of(self, request: Request) -> Request | None:
        return replace(request, path=f"{request.path}-stream", wire=FrameReader)

    def piece_of_event(self, event: Any) -> str | None:
        return piece_of_event(event)

    def answer_of_events(self, events: list[Any]) -> Any:
        return answer_of_events(events)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        if self._keys is not None:
            self._keys.worked()
        return converse_output(answer)

    def used_tokens(self, output: GenerateOutput) -> int | None:
        """Those that count towards the quotas: what was read from the cache does not."""
        used = super().used_tokens(output)
        cached = output["statistics"].get("cached_tokens") or [0]
        return None if used is None else used - (cached[0] or 0)
