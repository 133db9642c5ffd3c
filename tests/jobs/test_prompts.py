"""What a row's columns become: any columns and any template give an input or one error, and templates are bounded."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.prompts.templates import PromptTemplate

NAMES = [
    "messages",
    "conversations",
    "prompt",
    "instruction",
    "input",
    "items",
    "self",
    "loop",
    "row",
    "my col",
    "a",
]

KEYS = st.sampled_from(
    ["role", "content", "from", "value", "type", "text", "name", "tool_calls", "arguments", "input", "x"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.sampled_from(["user", "assistant", "human", "gpt", "function_call", "text", "[", '[{"role": "user"}]', "\ud800"]),
    st.dates(), st.datetimes(), st.timedeltas(), st.decimals(),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
COLUMNS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)

EXPRESSIONS = [
    "a", "prompt", "self", "loop", "items", "row", 'row["my col"]', "row.items", "messages[0].content", "a.x.name", "nope",
    "a | default('d')", "a ~ prompt", "a + a", "a * 10**9", "a ** 10**9", "a % a", "a | tojson", "a | join(',')", "a | upper",
    "a | length", "a | list", "a | replace('', a)", "a | center(10**10)", "a | indent(10**9)", "'%s' | format(a)", "a.items()",
    "a.__class__", "a | map(attribute='x') | list", "a | sum", "a | sort", "a | fromjson", "[a, [a, messages]]", "a == prompt",
    "a in messages", "not a", "a | batch(10**9) | list", "a | string", "a | e", "a | pprint", "a if a else prompt", "a is none",
    "a()", "a | wordwrap(1, True, 'x' * 10**6)", "a.format(a)", "a | int", "range(10**9)", "{'k': a}", "a | groupby('x')",
]  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(EXPRESSIONS).map(lambda text: "{{ " + text + " }}"),
    st.sampled_from(EXPRESSIONS).map(lambda text: "{% for i in " + text + " %}{{ i }}{{ loop.length }}{% endfor %}"),
    st.sampled_from(EXPRESSIONS).map(lambda text: "{% if " + text + " %}yes{% else %}no{% endif %}"),
    st.sampled_from(EXPRESSIONS).map(lambda text: "{% set a = " + text + " %}{{ a }}"),
    st.sampled_from(["{{", "}}", "{% include a %}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(prompt) }}", "{%", "text", "#}"]),
    st.text(max_size=5),
)  # fmt: skip


def formatted(formatter: RowFormatter, columns: dict[str, Any], typed: bool) -> None:
    before = repr(columns)
    input = formatter(Row(0, 7, columns, typed=typed))
    assert repr(columns) == before
    if isinstance(input, GenerationError):
        assert (input.kind, input.attempts) == ("invalid_input", 0)
        assert input.message.startswith("row 7: " if typed else "line 7: ")
    elif formatter.raw:
        assert isinstance(input, str)
    else:
        assert isinstance(input, list)
        for message in input:
            assert isinstance(message["role"], str)
            assert message.get("content") is None or isinstance(message["content"], (str, list))
    formatter.used(columns)
    formatter.missing(columns)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    COLUMNS, st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, "messages", "a", "my col"])
)
def test_any_columns_give_an_input_or_one_error(
    columns: dict[str, Any], raw: bool, typed: bool, drop: bool, named: str | None
) -> None:
    formatted(RowFormatter(raw=raw, prompt_column=named), columns, typed)
    formatted(RowFormatter(messages_column=named, drop_last_assistant=drop), columns, typed)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4).map("".join), COLUMNS)
def test_any_template_gives_an_input_or_one_error(template: str, columns: dict[str, Any]) -> None:
    try:
        formatter = RowFormatter(template)
    except ConfigurationError:
        return
    formatted(formatter, columns, False)
    assert formatter.template is not None
    formatter.template.unknown([columns])


# Values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a <b> & 'c'", "a <b> & 'c'"),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        ([], "[]"),
        ([{"from": "human", "value": "ü"}], '[{"from": "human", "value": "ü"}]'),
        ({"a": None, "b": [True, math.nan]}, '{"a": null, "b": [true, null]}'),
        ([datetime.date(2024, 5, 6), Decimal("1.10"), b"ab"], '["2024-05-06", "1.10", "YWI="]'),
        (datetime.datetime(2024, 5, 6, 7), "2024-05-06 07:00:00"),
        (Decimal("1.10"), "1.10"),
        (b"ab", "YWI="),
        ((1, 2), "[1, 2]"),
    ],
)
@pytest.mark.parametrize(
    "template", ["{{ a }}", "{{ a ~ '' }}", "{{ [a] | join }}", "{{ a | string }}", "{% set b = a %}{{ b }}"]
)
def test_a_value_is_written_as_json_has_it(value: Any, text: str, template: str) -> None:
    assert PromptTemplate(template)({"a": value}) == text


def test_tojson_is_json_and_not_html() -> None:
    assert PromptTemplate("{{ a | tojson }}")({"a": "<b> 'c' ü"}) == "\"<b> 'c' ü\""
    assert json.loads(PromptTemplate("{{ a | tojson(indent=2) }}")({"a": {"x": None}})) == {"x": None}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{ row["my col"] }}', "spaced"),
        ('{{ row["self"] }} {{ loop }} {{ items }}', 'me around [1, 2]'),
        ('{{ person.items }} {{ person["items"] }}', "[3] [3]"),
        ("{% for name in row %}{{ name }};{% endfor %}", "my col;self;loop;items;person;"),
        ("{% for i in items %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{{ (row.self ~ loop) | upper }}", "MEAROUND"),
    ],
)  # fmt: skip
def test_odd_names_are_reached(template: str, text: str) -> None:
    columns = {"my col": "spaced", "self": "me", "loop": "around", "items": [1, 2], "person": {"items": [3]}}
    assert PromptTemplate(template)(columns) == text


def test_a_column_named_row_is_that_column() -> None:
    assert PromptTemplate("{{ row }}")({"row": "a"}) == "a"


PERSON = "{{ person.name }} of {{ person.team.name }}"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"person": None}, "its person is null"),
        ({}, "the row has no person"),
        ({"person": '{"name": "Ada"}'}, "its person is a text, which has no name"),
        ({"person": {}}, "its person is empty, which has no name"),
        ({"person": {"name": None}}, "its person.name is null"),
        ({"person": {"name": "Ada", "team": None}}, "its person.team is null"),
        (
            {"person": {"name": "Ada", "team": {"nom": "x"}}},
            "its person.team is an object, which has no name",
        ),
        ({"person": {"name": "Ada", "team": [1]}}, "its person.team is a list, which has no name"),
    ],
)
def test_what_a_template_does_not_find_is_named_with_its_path(columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="cannot be filled") as raised:
        PromptTemplate(PERSON)(columns)
    assert str(raised.value) == f"the template cannot be filled: {problem}"


def test_the_value_that_is_missing_is_named_and_not_another_one_that_is_null() -> None:
    template = PromptTemplate("{% if note is none %}-{% endif %}{{ a.b }}{{ note | default('') }}")
    with pytest.raises(ValueError, match="its a is an object, which has no b"):
        template({"note": None, "a": {"c": 1}})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ n | default('d') }}", "d"),
        ("{{ n or 'd' }}", "d"),
        ("{% if n %}yes{% else %}no{% endif %}", "no"),
        ("{% if n is none %}none{% endif %}", "none"),
        ("{% if n == none %}none{% endif %}", "none"),
        ("{% if n is defined %}yes{% else %}no{% endif %}", "no"),
        ("{{ o.n | default('d') }}", "d"),
        ("{{ o }}", '{"n": null}'),
        ("{{ [n] }}", "[null]"),
    ],
)
def test_null_is_no_value_and_false(template: str, text: str) -> None:
    assert PromptTemplate(template)({"n": None, "o": {"n": None}}) == text


@pytest.mark.parametrize(
    "template",
    ["{{ n }}", "{{ n | upper }}", "{{ n.x }}", "{{ n ~ 'a' }}", "{{ n + 1 }}", "{{ [n] | join }}"],
)
def test_null_has_no_text(template: str) -> None:
    with pytest.raises(ValueError, match="its n is null"):
        PromptTemplate(template)({"n": None})


@pytest.mark.parametrize(
    "template", ["{{ a.upper }}", "{{ a | map('upper') }}", "{{ range }}", "{{ dict }}", "{{ namespace }}"]
)
def test_a_part_of_the_template_has_no_text(template: str) -> None:
    with pytest.raises(ValueError, match="which has no text"):
        PromptTemplate(template)({"a": "x"})


# Bounds


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10**10 }}", "{{ 10**10 * 'x' }}", "{{ [1] * 10**10 }}", "{{ 'x' * 10000000000 }}", "{{ 9 ** (9 ** 9) }}",
        "{{ 'x'.ljust(10**10) }}", "{{ 'x'.center(width=10**10) }}", "{{ 'x' | center(10**10) }}", "{{ 'x' | center(width=10**10) }}",
        "{{ '%10000000000d' % 1 }}", "{{ '%*d' % (10**10, 1) }}", "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}", "{{ '{:{w}}'.format(1, w=10**10) }}", "{{ '{a:10000000000}'.format_map({'a': 1}) }}",
        "{{ 'x' | indent(10**10, first=true) }}", "{{ 'x\n' | indent('y' * 10**7) }}", "{{ '\t'.expandtabs(10**10) }}",
        "{{ ('x' * 10**6) | replace('x', 'y' * 10**6) }}", "{{ ('x' * 10**6).replace('x', 'y' * 10**6) }}",
        "{{ (['x' * 10**6] * 10**5) | join }}", "{{ ('x' * 10**6).join(['y'] * 10**5) }}", "{{ ('x ' * 10**6) | wordwrap(1, true, 'y' * 10**6) }}",
        "{{ [1] | batch(10**10, 'x') | list }}", "{{ [1] | slice(10**10, 'x') | list }}", "{{ [[1] * 10**6] | sum(start=[]) }}",
        "{{ (1).to_bytes(10**10, 'big') }}", "{{ a | tojson(indent=10**10) }}", "{{ 'x'.translate({120: 'y' * 10**7}) * 2 }}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set x %}{% for i in range(99999) %}{{ 'x' * 10**6 }}{% endfor %}{% endset %}",
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = n.x + [('x' * 10**7) | upper] %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(99999) %}{% set n.x = n.x + [('x' * 10**7)[1:]] %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 10**6 }}{% endfor %}",
        "{% macro m() %}{% for i in range(99999) %}{{ 'x' * 10**6 }}{% endfor %}{% endmacro %}{{ m() }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% for i in range(99999) recursive %}{% if loop.depth < 9 %}{{ loop(range(99999)) }}{% endif %}{% endfor %}",
    ],
)  # fmt: skip
def test_a_template_cannot_take_much(template: str) -> None:
    bounded = PromptTemplate(template)
    with pytest.raises(ValueError, match="the template cannot be filled"):
        bounded({"a": {"b": 1}})
    assert bounded.exceeded
    assert PromptTemplate("{{ a }}")({"a": 1}) == "1"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x'.__class__ }}", "{{ ''['__class__'] }}", "{{ a.__init__.__globals__ }}", "{{ row.__class__ }}",
        "{{ '{0.__class__}'.format(a) }}", "{{ 'x' | attr('__class__') }}", "{{ cycler.__init__ }}", "{{ a.clear() }}", "{{ row.pop('a') }}",
    ],
)  # fmt: skip
def test_a_template_reads_nothing_but_the_row_and_changes_nothing(template: str) -> None:
    columns = {"a": {"b": 1}}
    with pytest.raises(ValueError, match="the template cannot be filled"):
        PromptTemplate(template)(columns)
    assert columns == {"a": {"b": 1}}


def test_a_long_text_of_a_row_is_no_matter() -> None:
    text = "x" * 5_000_000
    assert PromptTemplate("{{ a }} {{ a | upper | length }}")({"a": text}) == f"{text} 5000000"
