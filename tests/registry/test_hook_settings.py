"""The settings of hook plugins: a table of the user's config file, checked by a model of the plugin's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from stillhouse import ConfigurationError, PluginError, Registry, hookimpl
from stillhouse.registry.policy import Policy


class Settings(BaseModel):
    folder: str = Field(default="here", description="Where.")
    many: int = Field(default=3, ge=1, description="How many.")
    token: SecretStr | None = None


class Configured:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []

    @hookimpl
    def settings_model(self) -> type[Settings]:
        return Settings

    @hookimpl
    def configure(self, settings: Settings) -> None:
        self.settings.append(settings)


def registry_with(plugin: object, table: dict[str, Any]) -> Registry:
    registry = Registry(entry_points=[], policy=Policy(hooks={"mine": table}, sources={"hooks": "the file"}))
    registry.register_hooks("mine", plugin)
    return registry


def test_a_plugin_gets_its_settings_and_the_defaults_of_the_others() -> None:
    plugin = Configured()
    registry_with(plugin, {"many": 7})
    (given,) = plugin.settings
    assert (given.many, given.folder) == (7, "here")


def test_a_plugin_without_a_table_gets_the_defaults() -> None:
    plugin = Configured()
    Registry(entry_points=[], policy=Policy()).register_hooks("mine", plugin)
    assert plugin.settings == [Settings()]


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"fodler": "x"}, "[hooks.mine] in the file: there is no 'fodler'", "did you mean 'folder'?"),
        ({"many": 0}, "[hooks.mine] in the file: many: must be ", "stillhouse show mine"),
        ({"many": "x", "token": 5}, "many: must be a whole number", "stillhouse show mine"),
    ],
)
def test_a_wrong_setting_is_refused(table: dict[str, Any], message: str, hint: str) -> None:
    plugin = Configured()
    with pytest.raises(ConfigurationError) as caught:
        registry_with(plugin, table)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert plugin.settings == []


def test_the_value_of_a_wrong_setting_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry_with(Configured(), {"token": ["sk-secret"]})
    assert "sk-secret" not in str(caught.value)


def test_settings_for_a_plugin_that_takes_none_are_refused() -> None:
    class Plain:
        @hookimpl
        def after_generate(self) -> None: ...

    with pytest.raises(ConfigurationError, match=r"the hook mine takes none"):
        registry_with(Plain(), {"many": 1})


def test_a_plugin_may_refuse_its_settings() -> None:
    class Picky(Configured):
        @hookimpl
        def configure(self, settings: Settings) -> None:
            raise ConfigurationError("there is no such folder", hint="make it")

    with pytest.raises(ConfigurationError, match="no such folder"):
        registry_with(Picky(), {})


class NoModel(Configured):
    @hookimpl
    def settings_model(self) -> Any:
        return dict


class Half:
    @hookimpl
    def configure(self, settings: Any) -> None: ...


class Faulty(Configured):
    @hookimpl
    def configure(self, settings: Settings) -> None:
        raise KeyError("folder")


@pytest.mark.parametrize(
    ("plugin", "cause"),
    [
        (NoModel(), "settings_model returned <class 'dict'>, which is not a pydantic model"),
        (Half(), "it has the hook configure without settings_model"),
        (Faulty(), "KeyError: 'folder'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_a_plugin_whose_settings_do_not_work_is_not_used(plugin: object, cause: str) -> None:
    with pytest.raises(PluginError) as caught:
        registry_with(plugin, {})
    assert caught.value.code == "E206"
    assert cause in str(caught.value)


# The config file

SOURCE = """
from pydantic import BaseModel, Field
from stillhouse import hookimpl

seen = []


class Settings(BaseModel):
    many: int = Field(default=3, description="How many.")


@hookimpl
def settings_model():
    return Settings


@hookimpl
def configure(settings):
    seen.append(settings.many)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setattr("stillhouse.registry.policy.config_file", lambda: path)
    return path


def test_the_config_file_sets_an_installed_plugin(site: Any, config: Path) -> None:
    site.install("plug", hooks={"plug": "plug_module"}, modules={"plug_module": SOURCE})
    config.write_text("[hooks.plug]\nmany = 9\n")
    registry = Registry()
    registry.hooks()
    import plug_module  # type: ignore[import-not-found]

    assert plug_module.seen == [9]
    assert registry.warnings() == []


def test_a_wrong_setting_in_the_config_file_stops_every_run(site: Any, config: Path) -> None:
    site.install("plug", hooks={"plug": "plug_module"}, modules={"plug_module": SOURCE})
    config.write_text("[hooks.plug]\nmanny = 9\n")
    registry = Registry()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="there is no 'manny'"):
            registry.hooks()
    config.write_text("[hooks.plug]\nmany = 9\n")
    registry.hooks()


def test_a_table_for_a_hook_that_is_not_installed_is_a_warning(site: Any, config: Path) -> None:
    site.install("plug", hooks={"plug": "plug_module"}, modules={"plug_module": SOURCE})
    config.write_text("[hooks.plugg]\nmany = 9\n")
    (warning,) = Registry().warnings()
    assert f"{config} has settings for the hook 'plugg'" in warning
    assert "did you mean 'plug'?" in warning


def test_hooks_must_be_a_table_of_tables(config: Path) -> None:
    config.write_text("[hooks]\nmany = 9\n")
    with pytest.raises(ConfigurationError, match=r"not a table for each hook"):
        Registry(entry_points=[]).plugins()
