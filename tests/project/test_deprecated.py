"""Documented import paths that moved: they work, and say where they are now."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import stillhouse
from stillhouse._deprecated import MOVED, StillhouseDeprecationWarning

# What was public under each old path when it moved.
NAMES = {
    "stillhouse.answers": "AnswerForm answer_problem value_problem",
    "stillhouse.http.failures": "Failure UnclearError failure_of message_of",
    "stillhouse.http.quotas": "X_RATELIMIT QuotaHeaders left_of seconds_until",
    "stillhouse.http.uploads": "BLOCK Upload form_upload",
    "stillhouse.jobs.arrow": "RowSpool readable rows_of",
    "stillhouse.jobs.rows": "Row RowFormatter digest_of invalid_row",
    "stillhouse.ledger": "BatchLedger Chunk ChunkState Rows default_path new_name",
    "stillhouse.serialization": "Serializable digest is_secret read_settings shaping_fields without_secrets",
}


def test_every_moved_import_path_is_tested() -> None:
    assert set(NAMES) == set(MOVED)


@pytest.mark.parametrize("old", NAMES)
def test_an_old_path_works_and_names_the_new_one(old: str) -> None:
    sys.modules.pop(old, None)
    moved = MOVED[old]
    with pytest.warns(StillhouseDeprecationWarning) as warned:
        module = importlib.import_module(old)
    (warning,) = warned
    assert f"{old} is {moved.new} since" in str(warning.message)
    assert f"goes away in {moved.until}" in str(warning.message)
    home = importlib.import_module(moved.new)
    for name in NAMES[old].split():
        assert getattr(module, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        module.nothing_of_that_name  # noqa: B018


@pytest.mark.parametrize("old", NAMES)
def test_a_type_checker_finds_the_same_names_under_an_old_path(old: str) -> None:
    stub = Path(stillhouse.__file__).parent.joinpath(*old.split(".")[1:]).with_suffix(".pyi")
    imported = re.findall(r"^from (\S+) import (\w+) as \2$", stub.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(imported) == sorted((MOVED[old].new, name) for name in NAMES[old].split())


def test_the_warning_names_the_line_of_the_import() -> None:
    code = "import warnings; warnings.simplefilter('always')\n\nfrom stillhouse.ledger import BatchLedger\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.startswith(
        "<string>:3: StillhouseDeprecationWarning: stillhouse.ledger is stillhouse.offline"
    )


def test_old_import_path_is_imported_once_and_cached() -> None:
    sys.modules.pop("stillhouse.answers", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = importlib.import_module("stillhouse.answers")
        assert importlib.import_module("stillhouse.answers") is first
    assert len(caught) == 1


def test_import_path_that_never_existed_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        importlib.import_module("stillhouse.nowhere")
