"""`InferenceEndpointsLLM`: Hugging Face's router, its endpoints, and servers at any address.

Over 300 lines: it is one class, and a third of it describes fields and parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack, cast

from pydantic import Field, PrivateAttr

from stillhouse import (
    Capability,
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    RuntimeParameter,
    StructuredOutput,
    UnsupportedError,
)
from stillhouse.http import Failure, QuotaLeft, Request, RequestForm, message_of
from stillhouse.typing import ModelInfo
from stillhouse_huggingface import tgi
from stillhouse_huggingface.addresses import API, ROUTER, api_of, is_of_hugging_face, root_of
from stillhouse_huggingface.endpoints import Finder
from stillhouse_huggingface.failures import endpoint_failure, quotas_of
from stillhouse_huggingface.listing import models_of
from stillhouse_huggingface.parameters import EndpointParameters
from stillhouse_huggingface.schemas import grammar_of
from stillhouse_huggingface.tokens import saved_token
from stillhouse_openai import CompatibleLLM

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["InferenceEndpointsLLM"]

_TGI_ONLY = ("typical_p", "watermark")


@dataclass(slots=True)
class _Generate(Request):
    """A request to `generate`, and whether it asks for log probabilities: they come in any case."""

    logprobs: bool = False


class InferenceEndpointsLLM(CompatibleLLM):
    """Models on Hugging Face: of any inference provider, on an endpoint by name, or at an address.

    With `endpoint_name`, requests go to that Inference Endpoint, which `load` looks up and waits for. With
    `base_url`, they go to a server at that address, on Hugging Face or anywhere. With `model` alone, they go
    to the router, which passes them on to a provider: `org/name`, `org/name:PROVIDER`, or
    `org/name:cheapest`.

    Servers implement OpenAI's API or that of Text Generation Inference (TGI); `load` detects which. Only
    endpoints support raw prompts, and only TGI supports a `regex`.
    """

    capabilities: ClassVar[frozenset[Capability]] = CompatibleLLM.capabilities | {"regex"}
    """Of all that it can be; an LLM has fewer as soon as it is known what it is."""

    raw_forms: ClassVar[bool] = True

    default_base_url: ClassVar[str | None] = ROUTER
    api_key_variable: ClassVar[str | None] = "HF_TOKEN"
    other_credentials: ClassVar[str] = "the token of `hf auth login`"

    models_path: ClassVar[str | tuple[str, ...] | None] = "models"

    model: str = Field(
        default="",
        description="The model, such as org/name or org/name:PROVIDER; the endpoint's own if it is empty.",
    )
    endpoint_name: RuntimeParameter[str] | None = Field(
        default=None, description="The name of an Inference Endpoint."
    )
    endpoint_namespace: RuntimeParameter[str] | None = Field(
        default=None, description="The user or organization that owns the endpoint; the token's user if None."
    )
    api: RuntimeParameter[Literal["auto", "openai", "tgi"]] = Field(
        default="auto", description="The API of an endpoint; auto detects it when the LLM is loaded."
    )
    bill_to: RuntimeParameter[str] | None = Field(
        default=None, description="The organization that pays for requests to the router."
    )
    start_timeout: RuntimeParameter[float] = Field(
        default=900.0,
        ge=0,
        description="Maximum number of seconds that loading waits for an endpoint to start.",
    )
    retry_timeout: RuntimeParameter[float] = Field(
        default=600.0,
        ge=0,
        description="Seconds for which a failed request is retried; endpoints start slowly.",
    )
    max_tokens_name: str = Field(
        default="max_tokens", description="The server's name for max_new_tokens in chats."
    )

    _found: str | None = PrivateAttr(default=None)  # where the endpoint is
    _served: str = PrivateAttr(default="")  # the model's name in a request
    _speaks: Literal["openai", "tgi"] | None = PrivateAttr(default=None)
    _grammar: tuple[RequestForm, dict[str, Any]] | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._narrow()

    @property
    def model_name(self) -> str:
        return self.model or self.endpoint_name or self.base_url or "inference-endpoints"

    @property
    def _is_router(self) -> bool:
        return not self.base_url and not self.endpoint_name

    @property
    def _spoken(self) -> Literal["openai", "tgi"] | None:
        """What the server speaks; `None` as long as that is not known."""
        if self._speaks is not None:
            return self._speaks
        if self._is_router:
            return "openai"
        return None if self.api == "auto" else self.api

    def _narrow(self) -> None:
        """Declare what this LLM can do, as far as it is known what it is."""
        lacks: set[Capability] = set()
        if self._spoken == "tgi":
            lacks = {"num_generations"}  # it takes the number, and makes one
        elif self._spoken == "openai":
            lacks = {"regex", "raw_prompt"} if self._is_router else {"regex"}
        self.__dict__["capabilities"] = type(self).capabilities - lacks
        self._num_generations_param_supported = "num_generations" not in lacks

    # Loading

    def load(self) -> None:
        self._found, self._speaks, self._served = None, None, self.model
        if self.base_url and self.endpoint_name:
            raise ConfigurationError("base_url and endpoint_name are both set", hint="set only one of them")
        if self._is_router:
            if not self.model:
                raise ConfigurationError(
                    f"{type(self).__name__} requires a model",
                    hint="set model to one such as org/name, endpoint_name, or base_url",
                )
            self._speaks = "openai"
        else:
            self._look()
        self._narrow()
        if self.structured_output is not None:
            self._fields_of(self._own_form(self.structured_output))
        super().load()

    def unload(self) -> None:
        self._found, self._speaks = None, None
        self._narrow()
        super().unload()

    def _look(self) -> None:
        """Find the endpoint, what it speaks, and under which name it serves its model."""
        logger = logging.getLogger(f"stillhouse.llm.{self.model_name}")

        def finder() -> Finder:  # the key is another where the address is
            return Finder(self.resolved_key, self.default_headers or {}, self.start_timeout or 0.0, logger)

        repository = None
        if self.endpoint_name:
            if not self.resolved_key:
                raise ConfigurationError(
                    f"{type(self).__name__} needs an API key to look up an endpoint",
                    hint="set the environment variable HF_TOKEN, or api_key, or run: hf auth login",
                )
            found = finder().endpoint(self.endpoint_name, self.endpoint_namespace)
            self._found = found["status"]["url"]
            model = found.get("model")
            repository = model.get("repository") if isinstance(model, dict) else None
        address = self.configured_base_url() or ""
        info = None if self.api == "openai" else finder().info(root_of(address))
        self._speaks = "openai" if info is None and self.api != "tgi" else "tgi"
        if self._speaks == "tgi":  # any other name would be that of an adapter
            is_its_own = not self.model or (info is not None and self.model == info["model_id"])
            self._served = "tgi" if is_its_own else self.model
        elif not self.model:
            self._served = finder().model(address) or (repository if isinstance(repository, str) else "tgi")

    def configured_base_url(self) -> str | None:
        given = self._found or self.base_url
        if not given:
            return API if self.endpoint_name else self.default_base_url
        try:
            return api_of(given)
        except ValueError:
            return given

    def configured_api_key(self) -> str:
        """The key of the field, whatever the address; else the user's token, for Hugging Face's own hosts."""
        if self.api_key is not None:
            return super().configured_api_key()
        return saved_token() if is_of_hugging_face(self.configured_base_url() or "") else ""

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        # A server of one's own, and a public endpoint, want none.
        return not self._is_router or super().has_credential(headers)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        headers = super().auth_headers(api_key)
        return {**headers, "x-hf-bill-to": self.bill_to} if self.bill_to else headers

    def url_of(self, base_url: URL, path: str) -> URL:
        if path == "generate":  # it is beside OpenAI's API, and not below it
            root = base_url.raw_path.removesuffix("/v1") or "/"
            base_url = base_url.with_path(root, encoded=True, keep_query=True)
        return super().url_of(base_url, path)

    # Errors and quotas

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        failure = endpoint_failure(status, headers, body)
        if failure.kind == "authentication" and self.api_key is None and not self.resolved_key:
            hint = "set api_key: the token of this machine's user goes to Hugging Face's own hosts alone"
            return replace(failure, hint=hint)
        if status == 404 and not message_of(body)[1]:
            return replace(failure, message=f"status 404 at {self.api_url}")
        return failure

    def quotas_in(self, answer: Any, headers: Mapping[str, str]) -> Mapping[str, QuotaLeft | None]:
        return quotas_of(headers)

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        if self._speaks == "tgi":
            tgi.keep_counts(answer, headers)
        return super().failure_in(answer, headers)

    def models_in(self, answer: Any) -> Iterable[ModelInfo]:
        """Those of the router, each again by its providers, or those of an endpoint."""
        return cast("Iterable[ModelInfo]", models_of(answer))

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = super().check_arguments(arguments)
        given = {name: value for name, value in checked.items() if value is not None}
        if self._spoken == "tgi":
            tgi.check_parameters(given, type(self).__name__)
            if self.structured_output is not None:
                self._check_alone(given)
        else:
            self._check_not_of_tgi(given)
        return checked

    def _check_not_of_tgi(self, given: Mapping[str, Any]) -> None:
        for name in _TGI_ONLY:
            if given.get(name) is not None:
                raise UnsupportedError(
                    f"{type(self).__name__} supports {name} only for raw prompts on TGI", hint="leave it out"
                )

    def _check_alone(self, given: Mapping[str, Any]) -> None:
        if given.get("tools"):
            raise UnsupportedError(
                f"{type(self).__name__} does not support structured output together with tools: "
                "the endpoint runs TGI",
                hint="leave out one of them",
            )

    # Structured output

    @classmethod
    def form_fields(cls, structured_output: StructuredOutput) -> dict[str, Any]:
        """The fields of OpenAI's API; none for a form that only TGI has."""
        try:
            return super().form_fields(structured_output)
        except UnsupportedError:
            grammar_of(structured_output, cls.__name__)
            return {}

    def _fields_of(self, form: RequestForm) -> dict[str, Any]:
        """The fields of a request that demand a form, as the server in use takes them.

        Raises:
            UnsupportedError: it cannot honour the form.
        """
        if form.is_instructed:
            return {}
        if self._spoken == "tgi":
            made = self._grammar
            if made is None or made[0] is not form:
                made = self._grammar = form, grammar_of(form.asked, type(self).__name__)
            return {"response_format": made[1]}
        return form.fields or super().form_fields(form.asked)

    def check_input(self, input: Any) -> None:
        super().check_input(input)
        form = self.split(input)[1]
        if form is not None:
            if type(input) is str and self._spoken != "tgi":
                raise UnsupportedError(
                    f"{type(self).__name__} supports structured output for raw prompts only on TGI",
                    hint="send a chat",
                )
            self._fields_of(form)

    # Generating

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[EndpointParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with further parameters; those that TGI would ignore are rejected.

        Args:
            top_k: sample from this many most likely tokens; on TGI for raw prompts only.
            min_p: sample from tokens with at least this fraction of the most likely token's probability;
                not on TGI.
            typical_p: sample from the most typical tokens with this total probability; on TGI, for raw
                prompts only.
            repetition_penalty: penalty for tokens that have occurred, including in the prompt; 1 means
                none. On TGI for raw prompts only.
            watermark: whether to mark the text as generated; on TGI, for raw prompts only.
        """
        return await self.complete(input, num_generations, arguments)

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        if self._spoken == "tgi":
            return self._tgi_request(input, arguments)
        self._check_not_of_tgi(arguments)
        request = super().request_of(input, num_generations, arguments)
        self._name_model(request, arguments)
        if request.form is not None:
            request.body.update(
                {
                    name: value
                    for name, value in self._fields_of(request.form).items()
                    if name not in request.body
                }
            )
        return request

    def _tgi_request(self, input: FormattedInput, arguments: Mapping[str, Any]) -> Request:
        prompt, form = self.split(input)
        name, raw = type(self).__name__, type(prompt) is str
        given = {name: value for name, value in arguments.items() if value is not None}
        tgi.check_parameters(given, name, raw=raw)
        fields = {} if form is None else self._fields_of(form)
        if raw:
            body = tgi.generate_body(prompt, given, fields.get("response_format"))
            if self._served not in ("", "tgi"):
                body["parameters"].setdefault("adapter_id", self._served)
            asks = bool(given.get("logprobs") or given.get("top_logprobs"))
            return _Generate("generate", body, form, logprobs=asks)
        if fields:
            self._check_alone(given)
        request = super().request_of(input, 1, tgi.chat_arguments(given))
        self._name_model(request, given)
        extra = given.get("extra_body") or {}
        request.body.update({name: value for name, value in fields.items() if name not in extra})
        return request

    def _name_model(self, request: Request, arguments: Mapping[str, Any]) -> None:
        extra = arguments.get("extra_body") or {}
        if "model" not in extra:
            request.body["model"] = self._served or self.model or "tgi"

    def stream_request_of(self, request: Request) -> Request | None:
        if self._spoken == "tgi" and request.body.get("stop"):  # its texts end with what they stopped at
            return None
        return super().stream_request_of(request)

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        if request.path == "generate":
            asks = isinstance(request, _Generate) and request.logprobs
            return tgi.generated(answer, request.body, logprobs=asks)
        output = super().output_of(answer, request)
        stop = request.body.get("stop") if self._spoken == "tgi" and isinstance(request.body, dict) else None
        if stop and answer["choices"][0].get("finish_reason") == "stop_sequence":
            texts = output["generations"]
            output["generations"] = [(text and tgi.without_stop(text, stop)) or None for text in texts]
        return output
