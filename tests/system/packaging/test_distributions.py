"""Every distribution, built as it would be published."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(
    path.parent for path in [ROOT / "core/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
)

pytestmark = pytest.mark.environment


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """The folder of a distribution, its sdist, and the wheel made from that sdist."""
    target = tmp_path_factory.mktemp("dist")
    installer = "uv" if shutil.which("uv") else "pip"
    build = [sys.executable, "-m", "build", "--installer", installer]
    subprocess.run([*build, "--outdir", target, request.param], check=True)
    (sdist,) = target.glob("*.tar.gz")
    (wheel,) = target.glob("*.whl")
    return request.param, sdist, wheel


def test_a_wheel_holds_the_package_with_its_types_and_licence(built: tuple[Path, Path, Path]) -> None:
    folder, _, wheel = built
    (package,) = (folder / "src").iterdir()
    sources = {
        path.relative_to(folder / "src").as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(
            archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        )
        entry_points = archive.read(
            next(name for name in names if name.endswith(".dist-info/entry_points.txt"))
        ).decode()
    assert sources <= names
    assert f"{package.name}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {package.name}
    assert not any("/tests/" in name for name in names if name.endswith(".py"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata.get_payload().strip()
    if folder.name != "core":
        assert "[stillhouse." in entry_points
        assert any(
            line.startswith("stillhouse") and ">=" in line and "<" in line
            for line in metadata.get_all("Requires-Dist")
        )


def test_an_sdist_holds_what_it_is_built_from(built: tuple[Path, Path, Path]) -> None:
    _, sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names
