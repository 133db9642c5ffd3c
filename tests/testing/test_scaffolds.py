"""What `stillhouse new` writes keeps every rule; with one mistake in it, it breaks one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.scaffold import Kind, Package, write

from .test_broken import FINE, distribution

Edit = tuple[str, str]

ANSWER = "    return prepare_output(\n"
REASONS = '        finish_reasons=["length" if completion.cut else "stop"],\n'
LOAD = "        super().load()\n        self._worker"
ONCE = """        super().load()
        assert not hasattr(type(self), "was_loaded")
        type(self).was_loaded = True
        self._worker"""
MERGED = "merged(await asyncio.gather(*calls, return_exceptions=True))"
TEXTS = '[output["generations"][0] for output in await asyncio.gather(*calls)]'
WORDS = '[word for message in content for word in str(message["content"]).split()]'
TRUSTING = """    def failure_in(self, answer: object, headers: object) -> None:
        return None

"""
EAGER = """    def model_post_init(self, context: object) -> None:
        super().model_post_init(context)
        self.load()

"""

GIVEN = "if value is not None:"
CHAT = "chat, _ = split_input(input)\n"
CONTENT = 'choice["message"]["content"] or None'

# By the name of the backend: what it stands on, what its author changed, and the rule that this breaks.
CASES: dict[str, tuple[Kind, list[Edit], str]] = {
    "waiting": ("async", [], ""),
    "engine": ("local", [], ""),
    "raw": ("local", [('{"chat", "raw_prompt", ', '{"raw_prompt", ')], ""),
    "written-out": (
        "local",
        [('{"chat", "raw_prompt", ', '{"raw_prompt", '), (WORDS, "str(content).split()")],
        "",
    ),
    "lost": ("local", [(ANSWER, '    {}["choices"]\n' + ANSWER)], "C00"),
    "gone": ("local", [(LOAD, '        raise RuntimeError("no engine")\n' + LOAD)], "C00"),
    "bare": ("local", [(MERGED, TEXTS)], "C00"),
    "one": ("local", [("in range(num_generations)", "in range(1)")], "C05"),
    "once": ("local", [(LOAD, ONCE)], "C20"),
    "eager": ("local", [("    @property\n    def model_name", EAGER + "    @property\n    def model_name")], "C25"),
    "unfrozen": ("local", [("frozenset(\n        {", "set(\n        {")], "C70"),
    "empty": ("local", [('" ".join(completion.tokens) or None', '" ".join(completion.tokens)')], "C15"),
    "endless": ("local", [("(prompt, max_new_tokens, own)", "(prompt, 10_000, own)")], "C12"),
    "silent": ("local", [(REASONS, "")], "C13"),
    "eos": ("local", [('else "stop"', 'else "eos"')], "C13"),
    "shouting": ("local", [('else "stop"', 'else "STOP"')], "C13"),
    "same": ("local", [("seed_of(seed, number)", "seed")], "C14"),
    "chatty": ("local", [(ANSWER, '    print("answering")\n' + ANSWER)], "C29"),
    "alone": ("local", [("        super().load()\n", "")], "C52"),
    "held": ("local", [("        super().unload()\n", "")], "C52"),
    "loud": ("async", [("self._client = Client()", 'self._client = Client()\n        print("connected")')], "C29"),
    "asking": ("http", [], ""),
    "misread": ("http", [('answer["choices"]', 'answer["choice"]')], "C00"),
    "blank": ("http", [(CONTENT, 'choice["message"]["content"]')], "C15"),
    "unbounded": ("http", [(GIVEN, GIVEN[:-1] + ' and name != "max_new_tokens":')], "C12"),
    "cool": ("http", [(GIVEN, GIVEN[:-1] + ' and name != "temperature":')], "H29"),
    "unseeded": ("http", [(GIVEN, GIVEN[:-1] + ' and name != "seed":')], "C82"),
    "single": ("http", [("PrivateAttr(default=False)", "PrivateAttr(default=True)")], "C05"),
    "text": ("http", [(CONTENT, 'str(choice["message"]["content"]) or None')], "H31"),
    "printing": ("http", [(CHAT, CHAT + "        print(chat)\n")], "C29"),
    "marking": ("http", [(CHAT, CHAT + '        chat[-1]["seen"] = True  # type: ignore\n')], "C10"),
    "trusting": ("http", [("    def output_of", TRUSTING + "    def output_of")], "H12"),
    "watching": ("hook", [], ""),
    "rowless": ("hook", [("if output is None or row is None:", "if output is None and row.error is None:")], "G01"),
    "talking": ("hook", [('_logger.info("%s: %d done', 'print("%s: %d done')], "G05"),
    "reading": ("reader", [], ""),
    "rewound": ("reader", [("        self._stream.seek(0)\n        self._read", "        self._read")], "I02"),
    "trusty": ("reader", [("    except UnicodeDecodeError:", "    except UnicodeEncodeError:")], "I06"),
    "writing": ("writer", [], ""),
    "careless": ("writer", [("        self._file.abandon()", "        self._file.stream.close()")], "O04"),
    "unlimited": ("async", [("complete(question, max_new_tokens)", "complete(question, None)")], "C12"),
}  # fmt: skip


def make(folder: Path, name: str) -> Path:
    kind, edits, _ = CASES[name]
    made = write(Package(name, kind, stillhouse.__version__), folder)
    names = {"hook": "hooks", "reader": "reader", "writer": "writer"}
    (source,) = (made / "src").glob(f"*/{names.get(kind, 'llm')}.py")
    text = source.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    source.write_text(text, encoding="utf-8")
    package = Package(name, kind, "1")
    entry = {name: package.entry_point}
    distribution(made / "src", package.distribution, "stillhouse>=0.1,<9", entry, package.group)
    return made


def run(folder: Path, *names: str, options: tuple[str, ...] = ()) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run the tests of these backends; return what is printed, and the rules of each by id."""
    made = [make(folder, name) for name in names]
    paths = [*(str(path / "src") for path in made), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder,
         "--import-mode=importlib", "--conformance-json", folder / "found.json", *options,
         *(path / "tests" for path in made)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for item in json.loads((folder / "found.json").read_text(encoding="utf-8")):
        name = Path(item["class"].partition("/tests/")[0]).name.removeprefix("stillhouse-")
        found.setdefault(name, {}).update({rule["id"]: rule for rule in item["rules"]})
    return result.stdout, found


@pytest.fixture(scope="module")
def all_of_them(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[str, dict[str, Any]]]:
    # They differ neither in how long an import takes nor in how long a retry waits.
    options = ("-k", "not c95 and not c96 and not test_h0 and not test_h1 or test_h12")
    return functools.cache(lambda: run(tmp_path_factory.mktemp("scaffolds"), *CASES, options=options))


@pytest.mark.parametrize("name", CASES)
def test_a_scaffold_with_one_mistake_breaks_one_rule(all_of_them: Any, name: str) -> None:
    rules = all_of_them()[1][name]
    found = {id: rule["outcome"] for id, rule in rules.items() if rule["outcome"] not in FINE}
    expected = CASES[name][2]
    assert found == ({expected: "broken"} if expected else {})


def test_where_nothing_is_answered_all_other_rules_are_skipped(all_of_them: Any) -> None:
    rules = all_of_them()[1]["lost"]
    others = {(rule["outcome"], rule["detail"]) for id, rule in rules.items() if id != "C00"}
    assert others == {("skipped", "C00 is broken")}


def test_a_failure_shows_the_authors_lines_and_no_others(all_of_them: Any) -> None:
    detail = all_of_them()[1]["lost"]["C00"]["detail"]
    assert "it raised KeyError: 'choices'" in detail
    lines = [line.strip() for line in detail.splitlines() if line.startswith("        ")]
    files = {line.partition(":")[0] for line in lines if ", in " in line}
    assert files == {"stillhouse-lost/src/stillhouse_lost/llm.py"}
    assert lines[-1] == '{}["choices"]'


def test_a_failure_has_its_own_remedy_and_no_other(all_of_them: Any) -> None:
    detail = all_of_them()[1]["bare"]["C00"]["detail"]
    assert "  fix   " in detail
    assert "report it" not in detail
    assert "  try  " not in detail


def test_a_rule_that_saw_nothing_is_skipped_with_the_reason(all_of_them: Any) -> None:
    rules = all_of_them()[1]["waiting"]
    assert (rules["C14"]["outcome"], rules["C14"]["detail"]) == (
        "skipped",
        "the answer to an input is always the same",
    )
    assert rules["C15"]["detail"].startswith("every generation had a text")


def test_the_table_lists_what_there_is_something_to_say_of(tmp_path: Path) -> None:
    printed, _ = run(tmp_path, "engine")
    table = printed.partition("conformance of ")[2]
    assert "kept" in table
    assert "C01" not in table
    assert "Outputs come in the order" not in table


def test_the_whole_table_is_printed_on_request(tmp_path: Path) -> None:
    printed, _ = run(tmp_path, "engine", options=("--conformance-table",))
    assert "C01  kept" in printed
