"""`AzureOpenAILLM`: OpenAI's models as deployments on Azure."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import IO, TYPE_CHECKING, ClassVar, Unpack

from pydantic import Field, PrivateAttr, SecretStr

from stillhouse import (
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    RuntimeParameter,
)
from stillhouse.http.batches import BatchLimits
from stillhouse.offline import Chunk, clean_words, path_segment
from stillhouse_openai.batches import FileBatchLLM
from stillhouse_openai.parameters import ServiceParameters
from stillhouse_openai.schemas import KEYWORDS
from stillhouse_openai.wire import said

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["AzureOpenAILLM"]

_TOKEN_SECONDS = 60.0
_FILE_SECONDS = 2.0


class AzureOpenAILLM(FileBatchLLM):
    """Deployments of OpenAI's models on Azure; `model` is the deployment's name.

    It is authorised by an API key, or by a token of Microsoft Entra ID. `base_url` is the endpoint
    of the resource, an address that names the deployment, or one that ends in `/openai/v1`. The
    environment variables are those of OpenAI's SDK.
    """

    base_url_variable: ClassVar[str | None] = "AZURE_OPENAI_ENDPOINT"
    api_key_variable: ClassVar[str | None] = "AZURE_OPENAI_API_KEY"
    credential_headers: ClassVar[tuple[str, ...]] = ("api-key", "authorization")
    other_credentials: ClassVar[str] = "a token of Entra ID by azure_ad_token_provider"
    models_path: ClassVar[str | None] = (
        None  # it lists OpenAI's models, and not the deployments of a resource
    )

    # https://learn.microsoft.com/azure/ai-services/openai/how-to/structured-outputs lists these as
    # unsupported, which OpenAI itself keeps to; it says nothing of the exclusive bounds.
    schema_keywords: ClassVar[frozenset[str]] = KEYWORDS - {
        "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems", "maximum", "minItems", "minimum",
        "multipleOf", "pattern",
    }  # fmt: skip

    # https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
    batch_limits: ClassVar[BatchLimits] = BatchLimits(requests=100_000, bytes=200_000_000)
    batch_endpoints: ClassVar[dict[str, str]] = {"chat/completions": "/chat/completions"}

    api_version: RuntimeParameter[str] | None = Field(
        default=None, description="The version of the API, such as 2024-10-21; OPENAI_API_VERSION if None."
    )
    azure_ad_token: RuntimeParameter[SecretStr] | None = Field(
        default=None, description="A token of Microsoft Entra ID; AZURE_OPENAI_AD_TOKEN if None."
    )
    azure_ad_token_provider: Callable[[], str | Awaitable[str]] | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="A function that returns a token of Microsoft Entra ID, called when one is required; "
        "it is not saved.",
    )

    _version: str = PrivateAttr(default="")
    _token: str = PrivateAttr(default="")
    _token_until: float = PrivateAttr(default=0.0)
    _token_lock: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, **arguments: Unpack[ServiceParameters]
    ) -> GenerateOutput:
        """Generate like `CompatibleLLM`, with a further parameter.

        Args:
            service_tier: the service tier, such as `priority`.
        """
        return await self.complete(input, num_generations, arguments)

    def load(self) -> None:
        self._version = self.api_version or os.environ.get("OPENAI_API_VERSION", "")
        self._token_until, self._token_lock = 0.0, asyncio.Lock()
        self.url_of(self._find_base_url(), "models")  # report now what is missing
        super().load()

    def auth_headers(self, api_key: str) -> dict[str, str]:
        if self.azure_ad_token_provider is not None:
            return {}
        token = "" if self.azure_ad_token is None else self.azure_ad_token.get_secret_value()
        if not token and self.api_key is None:
            token = os.environ.get("AZURE_OPENAI_AD_TOKEN", "")
        if token:
            return super().auth_headers(token.strip())
        return {"api-key": api_key} if api_key else {}

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        return self.azure_ad_token_provider is not None or super().has_credential(headers)

    async def authorize(self) -> Mapping[str, str]:
        provider = self.azure_ad_token_provider
        if provider is None:
            return {}
        # Providers keep their token and renew it minutes before it expires, but may block meanwhile.
        if self.event_loop.time() >= self._token_until:
            async with self._token_lock:
                if self.event_loop.time() >= self._token_until:
                    self._token = await _token_of(provider)
                    self._token_until = self.event_loop.time() + _TOKEN_SECONDS
        return super().auth_headers(self._token)

    async def upload_batch(self, chunk: Chunk, file: IO[bytes], size: int) -> str:
        """Upload the file and wait until it is processed: before that, no job can be made of it."""
        name = await super().upload_batch(chunk, file, size)
        while True:
            answer = await self.request("GET", f"files/{path_segment(name)}")
            given = answer if isinstance(answer, dict) else {}
            status = clean_words(given.get("status")).lower()
            if not status:
                raise GenerationError(
                    "the server did not answer with a file",
                    kind="server",
                    hint="check that base_url is the address of a resource on Azure",
                )
            if status in ("processed", "succeeded", "uploaded"):
                return name
            if status in ("error", "failed", "canceled", "cancelled", "deleted"):
                details = said(given.get("status_details") or given.get("error") or status)
                raise GenerationError(
                    f"the file of the batch was refused: {clean_words(details)}", kind="invalid_request"
                )
            await asyncio.sleep(_FILE_SECONDS)

    def url_of(self, base_url: URL, path: str) -> URL:
        where, given = base_url.path.rstrip("/"), base_url
        is_batch = path.partition("/")[0] in ("batches", "files")
        if is_batch and "/deployments/" in where:  # these belong to the resource, not to a deployment
            base_url = base_url.with_path(where.partition("/deployments/")[0])
        elif "/openai/" not in f"{where}/":
            below = ("openai",) if is_batch else ("openai", "deployments", self.model)
            base_url = base_url.joinpath(*below)
        if not self._version and not where.endswith("/openai/v1"):
            raise ConfigurationError(
                f"{type(self).__name__} requires an API version",
                hint="set api_version, or the environment variable OPENAI_API_VERSION",
            )
        url = super().url_of(base_url, path)
        if given.query and not url.query:  # another path drops it
            url = url.with_query(given.query)
        return url.update_query({"api-version": self._version}) if self._version else url


async def _token_of(provider: Callable[[], str | Awaitable[str]]) -> str:
    try:
        token = await asyncio.to_thread(provider)
        if inspect.isawaitable(token):
            token = await token
        if not isinstance(token, str) or not token:
            raise TypeError(f"it gave {type(token).__name__} instead of a token")
    except Exception as error:
        raise GenerationError(
            f"azure_ad_token_provider failed: {type(error).__name__}: {error}",
            kind="authentication",
            attempts=0,
            hint="call it by itself, and check the permissions of the identity",
        ) from error
    return token
