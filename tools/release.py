"""Prepare a release: one version for all distributions, their ranges, and the changelog.

    python tools/release.py VERSION            write everything, and print the commands that follow
    python tools/release.py --check [VERSION]  say what is inconsistent, and exit with 1 if anything is

VERSION is MAJOR.MINOR.PATCH. Pre-releases are not supported: the range `>=0.2,<0.3` of a plugin
excludes `0.2.0rc1`. Nothing is committed, tagged or pushed. Everything is computed before the first
file is written, and the same command again changes nothing.

What follows a release:
- the version of the core and of every plugin;
- every range of the form `stillhouse…>=A,<B` on one of these distributions: in their requirements, in the
  examples, in the templates and messages of the core, in `tests/system/stability`, and in the documentation;
- what the documentation shows as installed, such as `stillhouse 0.1.0`;
- `CHANGELOG.md`, from the fragments in `changelog.d`.

What does not: the versions of the examples and of the templates (0.1.0, the first version of a new
package), the test packages in `tests/broken_plugins` (they accept every core), and `docs/decisions`
(history).

Exit status 1: inconsistent, 2: refused.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKER = "<!-- towncrier release notes start -->\n"
NUMBER = r"(0|[1-9]\d*)"
VERSION = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}")

# The version of a `[project]` table, as every distribution here writes it.
PROJECT_VERSION = re.compile(r'^version = "([^"]*)"$', re.M)

# Where ranges follow the release.
RANGE_FILES = (
    "README.md",
    "core/README.md",
    "core/pyproject.toml",
    "core/src/stillhouse/**/*.py",
    "core/src/stillhouse/**/templates/**/*",
    "docs/**/*.md",
    "examples/*/pyproject.toml",
    "plugins/*/README.md",
    "plugins/*/pyproject.toml",
    "tests/system/stability/*/pyproject.toml",
)

# Where an installed version is shown.
SHOWN_FILES = ("README.md", "core/README.md", "docs/**/*.md", "plugins/*/README.md")

HISTORY = "docs/decisions/"


class RefusedError(Exception):
    """The release cannot be made, for the reason that it gives."""


@dataclass
class Release:
    """The files of a release: what they are, and what they become.

    Attributes:
        root: the checkout.
        distributions: each `pyproject.toml` with a version that follows the release, and the name in it.
        texts: the text of each file that has been read, as it will be.
        removed: the files that will be gone.
    """

    root: Path
    distributions: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in ["core/pyproject.toml", *self.paths("plugins/*/pyproject.toml")]:
            try:
                self.distributions[path] = tomllib.loads(self.text(path))["project"]["name"]
            except (KeyError, tomllib.TOMLDecodeError) as error:
                raise RefusedError(f"{path} cannot be read: {error!r}") from None
        ours = "|".join(
            re.escape(name) for name in sorted(self.distributions.values(), key=len, reverse=True)
        )
        start = rf"(?<![\w.-])(?P<name>{ours})"
        self._range = re.compile(rf"{start}(?P<extras>\[[^\]\n]*\])?(?P<range>>=[\d.]+,<[\d.]+)")
        self._shown = re.compile(rf"{start}(?P<between> |==)(?P<version>\d+\.\d+\.\d+)(?![\w.]*\d)")

    def paths(self, *patterns: str) -> Iterator[str]:
        """The files that match one of the patterns, relative to the checkout and sorted."""
        found = {
            path.relative_to(self.root).as_posix()
            for pattern in patterns
            for path in self.root.glob(pattern)
            if path.is_file() and "__pycache__" not in path.parts
        }
        yield from sorted(path for path in found if not path.startswith(HISTORY))

    def text(self, path: str) -> str:
        if path not in self.texts:
            # Bytes, so that a line ending stays what it is.
            self.texts[path] = (self.root / path).read_bytes().decode("utf-8")
        return self.texts[path]

    def version(self, path: str) -> str:
        """The version in a `pyproject.toml`."""
        found: list[str] = PROJECT_VERSION.findall(self.text(path))
        if len(found) != 1:
            raise RefusedError(f'{path} must have one line version = "…", and has {len(found)}')
        return found[0]

    # What is inconsistent

    def problems(self) -> list[str]:
        """What does not agree with the version of the core, and fragments that are no release's any more."""
        version = self.version("core/pyproject.toml")
        if not VERSION.fullmatch(version):
            return [f"core/pyproject.toml: {version!r} is not MAJOR.MINOR.PATCH"]
        problems = [
            f"{path}: the version is {self.version(path)}, and that of the core is {version}"
            for path in self.distributions
            if self.version(path) != version
        ]
        for path in self.distributions:
            if path != "core/pyproject.toml" and not self._range.search(self.text(path)):
                problems.append(f"{path}: there is no range stillhouse{range_of(version)}")
        for path in self.paths(*RANGE_FILES):
            for found, line in self._found(self._range, path):
                if found["range"] != range_of(version):
                    problems.append(f"{path}:{line}: {found[0]} should be {range_of(version)}")
        for path in self.paths(*SHOWN_FILES):
            for found, line in self._found(self._shown, path):
                if found["version"] != version:
                    problems.append(f"{path}:{line}: {found[0]} should be {version}")
        if MARKER not in self.text("CHANGELOG.md"):
            problems.append(f"CHANGELOG.md: the line {MARKER.strip()} is missing")
        return problems

    def unreleased(self, version: str) -> list[str]:
        """Why this tree is not the release of a version: what must hold where the tag is."""
        problems = []
        if self.version("core/pyproject.toml") != version:
            problems.append(
                f"core/pyproject.toml: the version is {self.version('core/pyproject.toml')}, not {version}"
            )
        if not re.search(
            rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", self.text("CHANGELOG.md"), re.M
        ):
            problems.append(f"CHANGELOG.md: there is no section of {version} with a date")
        problems += [f"{path} is in no release yet" for path in self.fragments()]
        return problems

    def _found(self, pattern: re.Pattern[str], path: str) -> Iterator[tuple[re.Match[str], int]]:
        try:
            text = self.text(path)
        except UnicodeDecodeError:
            return
        for found in pattern.finditer(text):
            yield found, text.count("\n", 0, found.start()) + 1

    # What the release changes

    def prepare(self, version: str, date: datetime.date) -> None:
        """Compute the files of the release."""
        for path in self.distributions:
            self.version(path)
            self.texts[path] = PROJECT_VERSION.sub(f'version = "{version}"', self.text(path))
        for path in self.paths(*RANGE_FILES):
            if any(self._found(self._range, path)):
                self.texts[path] = self._range.sub(
                    lambda found: f"{found['name']}{found['extras'] or ''}{range_of(version)}",
                    self.text(path),
                )
        for path in self.paths(*SHOWN_FILES):
            self.texts[path] = self._shown.sub(
                lambda found: f"{found['name']}{found['between']}{version}", self.text(path)
            )
        self.texts["CHANGELOG.md"] = self._changelog(version, date)
        self.removed = self.fragments()

    def fragments(self) -> list[str]:
        return list(self.paths("changelog.d/+*.md"))

    def _changelog(self, version: str, date: datetime.date) -> str:
        text = self.text("CHANGELOG.md")
        if text.count(MARKER) != 1:
            raise RefusedError(f"CHANGELOG.md must have the line {MARKER.strip()} once")
        for other in re.findall(r"^## (\S+) \(unreleased\)$", text, re.M):
            if other != version:
                raise RefusedError(
                    f"CHANGELOG.md has a section of {other} that is not released: release it first"
                )
        title = f"## {version} ({date.isoformat()})"
        open_title = f"## {version} (unreleased)\n"
        has_section = re.search(rf"^## {re.escape(version)} \(\d", text, re.M) is not None
        if has_section and not self.fragments():
            return text  # the same command again
        if has_section:
            raise RefusedError(
                f"CHANGELOG.md already has a section of {version}, and changelog.d has fragments: "
                "release them with another version"
            )
        section = self._rendered(version, date).removeprefix(title).strip()
        if open_title in text:
            # The section was written by hand before there were fragments: they go under it.
            start = text.index(open_title) + len(open_title)
            end = text.find("\n## ", start)
            end = len(text) if end < 0 else end
            parts = [text[start:end].strip(), *([section] if self.fragments() else [])]
            body = "\n\n".join(part for part in parts if part)
            return f"{text[: start - len(open_title)]}{title}\n\n{body}\n{text[end:]}"
        before, after = text.split(MARKER)
        return f"{before}{MARKER}\n{title}\n\n{section}\n\n{after.lstrip()}"

    def _rendered(self, version: str, date: datetime.date) -> str:
        """The section that towncrier makes of the fragments."""
        command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", version]
        done = subprocess.run(
            [*command, "--date", date.isoformat(), "--dir", str(self.root)],
            capture_output=True, text=True, encoding="utf-8", check=False,
            env={**os.environ, "PYTHONUTF8": "1"},
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
            raise RefusedError(f"towncrier failed: {last} (pip install -r tools/requirements.txt)")
        return done.stdout.strip()

    def write(self) -> list[str]:
        """Write what changed, each file in one step, and return the paths."""
        changed = {
            path: text.encode("utf-8")
            for path, text in self.texts.items()
            if (self.root / path).read_bytes() != text.encode("utf-8")
        }
        drafts = {path: self.root / f"{path}.release" for path in changed}
        try:
            for path, draft in drafts.items():
                draft.write_bytes(changed[path])
            for path, draft in drafts.items():
                draft.replace(self.root / path)
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)
        for path in self.removed:
            (self.root / path).unlink()
        return sorted([*changed, *self.removed])


def numbers(version: str) -> tuple[int, int, int]:
    """The three numbers of a version.

    Raises:
        RefusedError: it is not MAJOR.MINOR.PATCH.
    """
    found = VERSION.fullmatch(version)
    if found is None:
        raise RefusedError(f"{version!r} is not MAJOR.MINOR.PATCH, such as 0.2.0")
    return int(found[1]), int(found[2]), int(found[3])


def range_of(version: str) -> str:
    """The cores that keep what this one promises: a minor version while it is 0.x, then a major one."""
    major, minor, _ = numbers(version)
    return f">={major}.{minor},<{major + 1 if major else f'0.{minor + 1}'}"


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    if done.returncode:
        raise RefusedError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def refuse_unfit(release: Release, version: str) -> None:
    """Refuse a release that was made already, or that starts from something unclear."""
    wanted, now = numbers(version), release.version("core/pyproject.toml")
    tags = [tag.removeprefix("v") for tag in git(release.root, "tag", "--list", "v*").split()]
    released = [numbers(tag) for tag in tags if VERSION.fullmatch(tag)]
    if released and wanted <= max(released):
        newest = ".".join(map(str, max(released)))
        raise RefusedError(f"{version} is not newer than the newest tag, v{newest}")
    if wanted < numbers(now):
        raise RefusedError(f"{version} is older than {now}, the version of the core")
    dirty = git(release.root, "status", "--porcelain").splitlines()
    if dirty:
        more = f" and {len(dirty) - 1} more" if len(dirty) > 1 else ""
        raise RefusedError(
            f"the tree has uncommitted changes: {dirty[0][3:]}{more}; commit them, or set them aside"
        )


def check(release: Release, version: str | None) -> int:
    problems = release.problems()
    if version is not None:
        numbers(version)
        problems += release.unreleased(version)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(release.distributions)} distributions agree on {release.version('core/pyproject.toml')}")
    return 1 if problems else 0


def make(release: Release, version: str, date: datetime.date) -> int:
    refuse_unfit(release, version)
    release.prepare(version, date)
    # A file that only looks like a release's is found before anything is written.
    if problems := release.problems():
        raise RefusedError("\n".join(["the release would be inconsistent:", *problems]))
    written = release.write()
    for path in written:
        print(f"{'removed' if path in release.removed else 'wrote'} {path}")
    print(
        f"{'Nothing to write: this is the tree of ' + version if not written else 'Read the diff'}. Then:\n\n"
        + (
            f'  git switch --create release-{version}\n  git commit --all --message "Release {version}"\n'
            if written
            else ""
        )
        + f"  # once it is merged and its checks have passed, on that commit of main:\n"
        f'  git tag --annotate v{version} --message "Stillhouse {version}"\n'
        f"  git push origin v{version}"
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepare a release of all distributions.")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="MAJOR.MINOR.PATCH")
    parser.add_argument("--check", action="store_true", help="only say what is inconsistent")
    parser.add_argument(
        "--date", type=datetime.date.fromisoformat, default=None, metavar="YYYY-MM-DD", help="default: today"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.version is None and not given.check:
        parser.error("give a VERSION, or --check")
    try:
        release = Release(given.root)
        if given.check:
            return check(release, given.version)
        return make(release, given.version, given.date or datetime.datetime.now(datetime.UTC).date())
    except RefusedError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
