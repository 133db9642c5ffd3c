"""`Serializable`: an LLM's settings, written to a file without secrets and read back safely.

A file names a *registered* backend under the key `llm`, never an import path: reading a file
imports only the module of an installed backend, and runs nothing. A file may set `base_url`, the address that
requests go to: an LLM made from it sends the API key of the environment there. The command prints a line when
a file does that; a program that reads a file from another person must check `base_url` first.

Over 300 lines: writing and reading mirror each other.
"""

from __future__ import annotations

import inspect
import json
import math
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stillhouse._defaults import default_backends
from stillhouse._settings.digest import schema_of
from stillhouse._settings.saving import replace_settings
from stillhouse._settings.secrets import (
    are_headers,
    fields_of,
    is_secret,
    is_secret_header,
    is_secret_header_value,
    masked,
    without_login,
)
from stillhouse.errors import ConfigurationError, near_matches

if TYPE_CHECKING:
    from stillhouse.protocols import Backends

__all__ = ["Serializable", "parse_document", "read_settings", "without_secrets"]

_NAME_KEY = "llm"

MAX_ITEMS = 100_000
"""How many items a file of settings may have."""


class Serializable(BaseModel):
    """`dump`, `save` and the `from_…` constructors of an LLM."""

    _masks_itself: ClassVar[bool] = True
    """Its own repr shows no secret."""

    def dump(self) -> dict[str, Any]:
        """Return the settings as plain JSON types, with the registered name under `llm`.

        Secrets are left out: a `SecretStr` at any depth, the values of headers that are not known to be
        harmless, a login within an address, and the values of its query. When the settings are read again,
        they come from the environment, or must be set again.

        Raises:
            ConfigurationError: the class is not registered, or a field has a value without a JSON type.
        """
        return self._dump(default_backends())

    def _dump(self, registry: Backends, name: str | None = None) -> dict[str, Any]:
        """`dump()`; `registry` is that of whatever holds this LLM, unless it has its own.

        `name` stands for that of a class which need not be registered.
        """
        registry = self._serializing_registry() or registry
        fields = type(self).model_fields
        kept = {name: getattr(self, name) for name, field in fields.items() if not field.exclude}
        plain = _plain(kept, type(self).__name__, registry)
        return {_NAME_KEY: name or registry.name_of(type(self)), **plain}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(name or "", value)

    def _serializing_registry(self) -> Backends | None:
        return None

    def save(self, path: str | Path, format: Literal["json", "yaml"] | None = None) -> None:
        """Write `dump()` to a file, as JSON or YAML; without `format` the file's suffix decides.

        Earlier settings in the file are replaced in one step; a link is followed.

        Raises:
            ConfigurationError: the file exists and is not a file of settings, or cannot be written; or as
                `dump`.
        """
        format = format or _format_of(Path(path))
        if format == "yaml":
            import yaml

            text = yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)
        else:
            text = json.dumps(self.dump(), indent=2, ensure_ascii=False) + "\n"
        replace_settings(path, text, lambda: isinstance(read_settings(path, format).get(_NAME_KEY), str))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], registry: Backends | None = None) -> Self:
        """Create an LLM from the result of `dump()`; `data` is not changed.

        Raises:
            ConfigurationError: `data` names no backend, or a backend of another class than this, or has an
                unknown key or a wrong value.
            UnknownLLMError, PluginError: the backend is not installed or unusable.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get(_NAME_KEY), str):
            raise ConfigurationError(
                f"the settings name no backend under the key {_NAME_KEY!r}",
                hint='write the name that `stillhouse list` shows, such as {"llm": "openai", …}',
            )
        registry = registry or default_backends()
        name = data[_NAME_KEY]
        found: type[Serializable] = registry.get_llm(name)
        if not issubclass(found, cls):
            raise ConfigurationError(
                f"the settings are of a {found.__name__}, not of a {cls.__name__}",
                hint=f"read them with {found.__name__}.from_dict or stillhouse.LLM.from_dict",
            )
        known = found.model_fields
        fields = {}
        for key, value in data.items():
            if key == _NAME_KEY:
                continue
            if key not in known:
                raise ConfigurationError(f"{name}: there is no {key!r}", hint=near_matches(str(key), known))
            try:
                fields[key] = _revive(value, registry) if _mentions_llm(known[key].annotation) else value
            except RecursionError:
                raise ConfigurationError(
                    f"{name}: {key} holds itself", hint="write each LLM out in full"
                ) from None
        llm = registry.create(name, **fields)
        assert isinstance(llm, cls)
        return llm

    @classmethod
    def from_json(cls, path: str | Path, registry: Backends | None = None) -> Self:
        """Create an LLM from a JSON file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path, "json"), registry)

    @classmethod
    def from_yaml(cls, path: str | Path, registry: Backends | None = None) -> Self:
        """Create an LLM from a YAML file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path, "yaml"), registry)

    @classmethod
    def from_file(cls, path: str | Path, registry: Backends | None = None) -> Self:
        """Create an LLM from a `.json`, `.yaml` or `.yml` file; errors as `from_dict`."""
        return cls.from_dict(read_settings(path), registry)


def described(settings: Serializable) -> dict[str, Any]:
    """`dump()`, also of a class that no file can name: such a one has its path for a name."""
    cls, registry = type(settings), settings._serializing_registry() or default_backends()
    try:
        name = registry.name_of(cls)
    except ConfigurationError:
        name = f"{cls.__module__}.{cls.__qualname__}"
    return settings._dump(registry, name)


def read_settings(path: str | Path, format: Literal["json", "yaml"] | None = None) -> dict[str, Any]:
    """Read a file that `save` wrote, as a dict; without `format` the file's suffix decides.

    Raises:
        ConfigurationError: the file cannot be read, or is not a file of settings.
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
        data = parse_document(text, format)
    except ValueError as error:
        raise ConfigurationError(f"{path} {error}", hint="correct the file") from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} holds no settings", hint="write the file with llm.save(PATH)")
    return data


def parse_document(text: str, format: Literal["json", "yaml"]) -> Any:
    """Read a document of JSON or YAML that a person wrote.

    Raises:
        ValueError: it is none; the message begins with `is not valid`, and says where.
    """
    try:
        data = _parse_yaml(text) if format == "yaml" else json.loads(text)
        _check_numbers(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid {format.upper()}: {error}") from None
    return data


def _check_numbers(data: Any, depth: int = 0) -> None:
    """Refuse a number that is none: no server takes it. A field itself may be infinite, such as a timeout.

    Raises:
        ValueError: there is one.
    """
    if isinstance(data, float) and (math.isnan(data) or (depth > 1 and math.isinf(data))):
        raise ValueError(f"{data} is no number that can be sent")
    if isinstance(data, (dict, list)):
        for item in data.values() if isinstance(data, dict) else data:
            _check_numbers(item, depth + 1)


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        # The nodes of an alias are those of its anchor: nothing is expanded before its size is known.
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _check_size(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        # Not the whole text of the error: it quotes the file, in which there may be a secret.
        mark = getattr(error, "problem_mark", None)
        where = f": line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise ValueError(f"{getattr(error, 'problem', None) or type(error).__name__}{where}") from None


def _check_size(root: Any) -> None:
    """Refuse a document of YAML that is huge once its aliases are written out, or holds itself.

    Raises:
        ValueError: it is so.
    """
    sizes: dict[int, int | None] = {}  # of each node; `None` while its children are counted

    def size(node: Any) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError(f"line {node.start_mark.line + 1} holds itself")
        if not known:
            sizes[id(node)] = None
            children = node.value if isinstance(node.value, list) else []
            known = 1
            for child in children:
                known += sum(map(size, child)) if isinstance(child, tuple) else size(child)
            sizes[id(node)] = known
        if known > MAX_ITEMS:
            raise ValueError(f"it has more than {MAX_ITEMS:,} items once its aliases are written out")
        return known

    if root is not None:
        size(root)


def without_secrets(value: Any) -> Any:
    """Convert a value to plain JSON types without its secrets, as `dump` does.

    Raises:
        ConfigurationError: it contains a value without a JSON type.
    """
    return _plain(value, "it", default_backends())


_OMITTED: Any = object()


def _plain(value: Any, where: str, registry: Backends) -> Any:
    """`value` as JSON types, or `_OMITTED` for a secret."""
    if isinstance(value, (SecretStr, SecretBytes, Secret)):
        return _OMITTED
    if isinstance(value, Serializable):
        return value._dump(registry)
    fields = fields_of(value)
    if fields is not None:
        return _plain(fields, where, registry)
    if isinstance(value, Mapping):
        is_hidden = is_secret_header_value if are_headers(_key_of(where), value) else is_secret
        plain = {
            str(key): _plain(item, f"{where}.{key}", registry)
            for key, item in value.items()
            if not is_hidden(str(key), item)
        }
        return {key: item for key, item in plain.items() if item is not _OMITTED}
    if is_secret_header(value, _key_of(where)):
        return _OMITTED
    if isinstance(value, str):
        return without_login(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        items_ = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        listed = [_plain(item, f"{where}[{position}]", registry) for position, item in enumerate(items_)]
        return [item for item in listed if item is not _OMITTED]
    try:
        return to_jsonable_python(value, fallback=schema_of)
    except (PydanticSerializationError, TypeError, ValueError):
        raise ConfigurationError(
            f"{where} holds a {type(value).__name__}, which neither a file nor the state of a run can hold",
            hint="use a value that JSON can hold, such as a name that load() looks up",
        ) from None


def _key_of(where: str) -> str:
    """Return the last key of a path, which begins with the name of a class."""
    return where.partition(".")[2].rpartition(".")[2]


def _mentions_llm(annotation: Any) -> bool:
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return issubclass(annotation, Serializable)
    return any(_mentions_llm(argument) for argument in typing.get_args(annotation))


def _revive(value: Any, registry: Backends) -> Any:
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
