"""A plugin that was written against the first contract keeps working, untouched."""

from __future__ import annotations

from pathlib import Path

import pytest

from ...environments import Environment, build_wheels

FOLDER = Path(__file__).parent / "stillhouse-steady"


@pytest.fixture(scope="module")
def installed(workshop: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    wheels = tmp_path_factory.mktemp("steady")
    build_wheels(wheels, FOLDER)
    workshop.install("--no-deps", "--no-index", *wheels.glob("*.whl"))
    return workshop


@pytest.mark.environment
def test_a_plugin_of_the_first_contract_passes_its_tests(installed: Environment) -> None:
    """It makes errors of warnings; those that name what it may use instead must stay warnings.

    It is held to the rules that the kit had when it was written.
    """
    deprecated = "default::stillhouse.errors.StillhouseDeprecationWarning"
    result = installed.run(
        *("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", deprecated),
        *("--conformance-until", "0.1"),
        cwd=FOLDER,
    )
    assert result.status == 0, result.out + result.err
    assert "stillhouse.jobs.rows is stillhouse.jobs.formats since" in result.out


@pytest.mark.environment
def test_a_plugin_of_the_first_contract_types_as_before(installed: Environment, tmp_path: Path) -> None:
    result = installed.run("mypy", "--cache-dir", tmp_path, cwd=FOLDER)
    assert result.status == 0, result.out
