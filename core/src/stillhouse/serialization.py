"""Writing an LLM's settings to a file and reading them back, without secrets and without surprises.

A file names a *registered* backend under the key `llm`, never an import path: reading a file
imports nothing that is not an installed backend's own module, and runs nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.llm import LLM
    from stillhouse.registry import Registry

__all__ = ["Serializable", "digest", "read_settings"]

_NAME_KEY = "llm"

# Keys of dicts (headers, extra arguments) whose text is a secret wherever it stands.
_SECRET_KEY = re.compile(
    r"(proxy-)?authorization|(set-)?cookie|token|secret|password|"
    r".*(api-?key|(access|auth|bearer|security|session)-token|secret(-key)?|-password|subscription-key)"
)


class Serializable(BaseModel):
    """`dump`, `save` and the `from_…` constructors of an LLM."""

    def dump(self) -> dict[str, Any]:
        """The settings as plain JSON types, with the registered name under `llm`.

        A `SecretStr` at any depth and the values of headers that authorise are left out: they
        come from the environment when the settings are read again.

        Raises:
            ConfigurationError: the class is not registered, or a field holds what JSON cannot.
        """
        from stillhouse.registry import default_registry

        registry = self._serializing_registry() or default_registry()
        data: dict[str, Any] = {_NAME_KEY: registry.name_of(type(self))}  # type: ignore[arg-type]
        for name, field in type(self).model_fields.items():
            if not field.exclude:
                value = _plain(getattr(self, name), f"{type(self).__name__}.{name}")
                if value is not _OMITTED:
                    data[name] = value
        return data

    def _serializing_registry(self) -> Registry | None:
        return None

    def save(self, path: str | Path, format: Literal["json", "yaml"] | None = None) -> None:
        """Write `dump()` to a file, as JSON or YAML; without `format` the file's suffix decides."""
        path = Path(path)
        if (format or _format_of(path)) == "yaml":
            import yaml

            text = yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)
        else:
            text = json.dumps(self.dump(), indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], registry: Registry | None = None) -> Self:
        """An LLM from what `dump()` gave; `data` is not changed.

        Raises:
            ConfigurationError: it names no backend, or one of another class than this, or has an
                unknown key or a wrong value.
            UnknownLLMError, PluginError: the backend is not installed or unusable.
        """
        from stillhouse.registry import default_registry

        if not isinstance(data, Mapping) or not isinstance(data.get(_NAME_KEY), str):
            raise ConfigurationError(
                f"the settings name no backend under the key {_NAME_KEY!r}",
                hint='write the name that `stillhouse list` shows, such as {"llm": "openai", …}',
            )
        registry = registry or default_registry()
        name = data[_NAME_KEY]
        found: type[LLM] = registry.get_llm(name)
        if not issubclass(found, cls):
            raise ConfigurationError(
                f"the settings are of a {found.__name__}, not of a {cls.__name__}",
                hint=f"read them with {found.__name__}.from_dict or stillhouse.LLM.from_dict",
            )
        fields = {}
        for key, value in data.items():
            if key != _NAME_KEY:
                field = found.model_fields.get(key)
                holds_llms = field is not None and _mentions_llm(field.annotation)
                fields[key] = _revive(value, registry) if holds_llms else value
        llm = registry.create(name, **fields)
        assert isinstance(llm, cls)
        return llm

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """An LLM from a JSON file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path, "json"))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """An LLM from a YAML file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path, "yaml"))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """An LLM from a `.json`, `.yaml` or `.yml` file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path))


def read_settings(path: str | Path, format: Literal["json", "yaml"] | None = None) -> dict[str, Any]:
    """What `save` wrote to a file, as a dict; without `format` the file's suffix decides.

    Raises:
        ConfigurationError: the file cannot be read, or holds no settings.
    """
    path = Path(path)
    format = format or _format_of(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", hint="check the path") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not a text file in UTF-8", hint="check the path") from None
    try:
        data = _parse_yaml(text) if format == "yaml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is not valid {format.upper()}: {error}", hint="correct the file"
        ) from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} holds no settings", hint="write the file with llm.save(PATH)")
    return data


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def digest(*parts: Any) -> str:
    """A SHA-256 of JSON-like values, the same in every process and for every order of keys.

    Raises:
        ConfigurationError: a part holds what JSON cannot.
    """
    try:
        plain = to_jsonable_python(parts, fallback=_schema_of)
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise ConfigurationError(f"no digest can be made of it: {error}") from None
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _schema_of(value: Any) -> Any:
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return value.model_json_schema()
    raise TypeError(f"{type(value).__name__} is not a JSON type")


_OMITTED: Any = object()


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON types, or `_OMITTED` for a secret."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return _OMITTED
    if isinstance(value, Serializable):
        return value.dump()
    if isinstance(value, BaseModel):
        items = {name: getattr(value, name) for name in type(value).model_fields}
        return _plain(items, where)
    if isinstance(value, Mapping):
        plain = {
            str(key): _plain(item, f"{where}.{key}")
            for key, item in value.items()
            if not (isinstance(item, (str, bytes)) and _is_secret_key(str(key)))
        }
        return {key: item for key, item in plain.items() if item is not _OMITTED}
    if isinstance(value, (list, tuple, set, frozenset)):
        items_ = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        listed = [_plain(item, f"{where}[{position}]") for position, item in enumerate(items_)]
        return [item for item in listed if item is not _OMITTED]
    try:
        return to_jsonable_python(value, fallback=_schema_of)
    except (PydanticSerializationError, TypeError, ValueError):
        raise ConfigurationError(
            f"{where} holds a {type(value).__name__}, which a file cannot hold",
            hint="set it in code after reading the file",
        ) from None


def _is_secret_key(key: str) -> bool:
    return _SECRET_KEY.fullmatch(key.lower().replace("_", "-")) is not None


def _mentions_llm(annotation: Any) -> bool:
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return issubclass(annotation, Serializable)
    return any(_mentions_llm(argument) for argument in typing.get_args(annotation))


def _revive(value: Any, registry: Registry) -> Any:
    """The LLMs that a field of LLMs was written as."""
    if isinstance(value, Mapping):
        if isinstance(value.get(_NAME_KEY), str):
            return Serializable.from_dict(value, registry)
        return {key: _revive(item, registry) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_revive(item, registry) for item in value]
    return value


def _format_of(path: Path) -> Literal["json", "yaml"]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "json"
    if suffix in (".yaml", ".yml"):
        return "yaml"
    raise ConfigurationError(
        f"{path} is neither a .json nor a .yaml file", hint="give the file one of these suffixes"
    )
