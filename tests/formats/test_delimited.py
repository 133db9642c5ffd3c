"""CSV and TSV as programs write them: delimiters, encodings, ends of lines, quotes, headers."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import open_file

from .conftest import rows_of

Write = Callable[[str, bytes], Path]

TABLE = [{"id": "1", "prompt": "Où est l’été ?"}, {"id": "2", "prompt": "Grüße; a, b"}]


def written(delimiter: str, encoding: str, mark: bytes = b"", newline: str = "\r\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "prompt"], delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(TABLE)
    return mark + text.getvalue().encode(encoding)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "mark", "told"),
    [
        ("utf-8", b"", ""),
        ("utf-8", codecs.BOM_UTF8, ""),
        ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16-le"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16-be"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("cp1252", b"", "cp1252"),
    ],
)
def test_delimiter_and_encoding_are_found_and_told(
    write: Write, delimiter: str, encoding: str, mark: bytes, told: str
) -> None:
    path = write("in.csv", written(delimiter, encoding, mark))
    found = rows_of(path)
    assert found.columns == TABLE
    (*_, note) = found.notes or [""]
    assert told in note
    assert bool(told) == ("its encoding" in note)
    assert ("separated" in note) == (delimiter != ",")
    assert len(found.notes) == bool(told or delimiter != ",")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
@pytest.mark.parametrize("text", ["Привет, мир, и всё остальное", "你好世界一二三四五"])
def test_utf_16_without_a_mark_of_text_that_is_hardly_ascii(
    write: Write, encoding: str, name: str, text: str
) -> None:
    content = f'текст;код\n"{text}";1\n{text};2\n' if name == "in.csv" else f'{{"текст":"{text}"}}\n' * 2
    found = rows_of(write(name, content.encode(encoding)))
    assert [row["текст"] for row in found.columns] == [text] * 2
    assert f"its encoding is {encoding}" in found.notes[0]


@pytest.mark.parametrize("zeros", [b"x\0y", b"\0", b"\0\0", b"ab\0\n\0"])
def test_zeros_in_a_field_are_no_utf_16(write: Write, zeros: bytes) -> None:
    for before in ("a", "ab"):
        found = rows_of(write("in.csv", f"{before},prompt\n1,".encode() + b'"' + zeros + b'"\n2,b\n3,c\n'))
        assert [row["prompt"] for row in found.columns] == [zeros.decode(), "b", "c"]
        assert not found.notes


def test_the_quotes_of_a_text_say_which_delimiter_it_has_not(write: Write) -> None:
    content = b'"1"\t"Abbott, Ann"\t"x"\n"2"\t"Burns, Bea"\t"y"\n"3"\t"Cole, Cy"\t"z"\n'
    found = rows_of(write("in.csv", content))
    assert found.columns[0] == {"1": "2", "Abbott, Ann": "Burns, Bea", "x": "y"}
    assert "separated by a tab" in found.notes[0]


def test_the_delimiter_of_rows_whose_quotes_are_all_broken(write: Write) -> None:
    found = rows_of(write("in.csv", b"id;prompt\n" + b'1;"say "hi" to them"\n' * 5))
    assert all("not valid CSV: ';' expected" in error for error in found.errors)
    assert len(found.errors) == 5


def test_the_delimiter_of_a_text_that_is_longer_than_its_sample(write: Write) -> None:
    text = "a, b\n" * 20_000
    assert rows_of(write("in.csv", f'id;prompt\n1;"{text}"\n'.encode())).columns == [
        {"id": "1", "prompt": text}
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_ends_of_lines(write: Write, newline: str, encoding: str) -> None:
    content = newline.join(["id,prompt", '1,"one é\rtwo"', '2,"a\nb"', "3,c", ""]).encode(encoding)
    assert [row["prompt"] for row in rows_of(write("in.csv", content)).columns] == ["one é\rtwo", "a\nb", "c"]


def test_what_is_said_wins(write: Write) -> None:
    path = write("in.csv", 'a;b,c\n1;"ж",3\n'.encode("cp1251"))
    assert rows_of(path, delimiter="comma", encoding="cp1251").columns == [{"a;b": '1;"ж"', "c": "3"}]
    path = write("in.tsv", b"a^b\n1^2\n")
    assert rows_of(path, delimiter="^").columns == [{"a": "1", "b": "2"}]
    assert rows_of(path, delimiter="^").notes == []


def test_excel_says_its_delimiter(write: Write) -> None:
    found = rows_of(write("in.csv", b"sep=|\r\na|b\r\n1|2,3\r\n"))
    assert found.columns == [{"a": "1", "b": "2,3"}]
    assert found.rows[0].line == 3


@pytest.mark.parametrize(
    "content",
    [
        b"prompt\nHello; world\na; b; c\nplain\n",
        b'prompt\n"x; y"\n"z|w"\n',
        b"prompt\nno\nnone | here\n",
    ],
)
def test_one_column_with_other_delimiters_in_it(write: Write, content: bytes) -> None:
    found = rows_of(write("in.csv", content))
    assert [row["prompt"] for row in found.columns] == [
        row[0] for row in csv.reader(io.StringIO(content.decode()))
    ][1:]
    assert found.notes == []


def test_a_column_in_which_rows_hold_the_usual_delimiter(write: Write) -> None:
    found = rows_of(write("in.csv", b"id;prompt\n1;Hello, world\n2;a, b, c\n"))
    assert found.columns == [{"id": "1", "prompt": "Hello, world"}, {"id": "2", "prompt": "a, b, c"}]


def test_an_empty_cell_is_no_value_and_words_stay_words(write: Write) -> None:
    words = ["NA", "null", "None", "nan", "-", "N/A", " ", "0042", "1e3", "+7", "٣"]
    content = "id,prompt\n" + "".join(f'{word},"{word}"\n' for word in words) + ",\n"
    found = rows_of(write("in.csv", content.encode()))
    assert found.columns == [{"id": word, "prompt": word} for word in words] + [{"id": None, "prompt": None}]


def test_a_mark_before_a_quoted_header(write: Write) -> None:
    for name, delimiter in (("in.csv", ","), ("in.tsv", "\t")):
        content = f'"id"{delimiter}"prompt"\r\n"001"{delimiter}"hi"\r\n'.encode("utf-8-sig")
        assert rows_of(write(name, content)).columns == [{"id": "001", "prompt": "hi"}]


def test_a_stray_quote_in_an_unquoted_field_is_text(write: Write) -> None:
    found = rows_of(write("in.csv", b'id,prompt,note\n1,a,5" pipe\n2,b,ok\n3,c,ok\n'))
    assert [row["note"] for row in found.columns] == ['5" pipe', "ok", "ok"]


def test_a_zero_in_a_field_survives(write: Write) -> None:
    found = rows_of(write("in.csv", b'id,prompt\n1,"x\0y"\n2,"x\0z"\n'))
    assert [row["prompt"] for row in found.columns] == ["x\0y", "x\0z"]
    assert found.rows[0].digest != found.rows[1].digest


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("prompt,note,note", "several columns have the name 'note'"),
        ("id,text, text", "several columns have the name 'text'"),
        ("a,,b,,c", "several columns have no name, such as columns 2 and 4"),
        (",,", "the header names no column"),
    ],
)
def test_a_header_that_is_not_clear_is_one_error(
    write: Write, generate: Any, header: str, problem: str
) -> None:
    path = write("in.csv", f"{header}\n1,2,3\n".encode())
    result = generate(path)
    assert (result.status, list(result.output.parent.iterdir())) == (1, [])
    assert f"{path}, line 1: {problem}" in result.err


def test_a_column_without_a_name_is_a_column(write: Write) -> None:
    assert rows_of(write("in.csv", b",prompt\n0,a\n1,b\n")).columns == [
        {"": "0", "prompt": "a"},
        {"": "1", "prompt": "b"},
    ]


def test_commas_at_the_end(write: Write) -> None:
    assert rows_of(write("a.csv", b"id,prompt\n1,hi,\n2,yo,,\n3,ok\n")).columns[1] == {
        "id": "2",
        "prompt": "yo",
    }
    assert rows_of(write("b.csv", b"id,prompt,\n1,hi\n2,yo,\n")).columns[0] == {"id": "1", "prompt": "hi"}
    found = rows_of(write("c.csv", b"id,prompt,\n1,hi,x\n2,yo\n3\n"))
    assert found.errors == [
        "line 2: 3 columns where the header has 2",
        "line 4: 1 column where the header has 2",
    ]
    assert found.rows[1].columns == {"id": "2", "prompt": "yo"}


def test_a_quoted_newline_in_the_header(write: Write) -> None:
    found = rows_of(write("in.csv", b'id,"the\nprompt"\n1,"a\nb"\n2,c\n'))
    assert found.columns[0] == {"id": "1", "the\nprompt": "a\nb"}
    assert [row.line for row in found.rows] == [3, 5]


def test_a_quote_without_an_end_does_not_swallow_the_file(write: Write, generate: Any) -> None:
    rows = [f'{number},"text {number}"\n' for number in range(1, 1001)]
    rows[2] = '3,"text 3\n'
    result = generate(write("in.csv", "".join(["id,prompt\n", *rows]).encode()))
    assert result.status == 1
    assert "in.csv, line 4: a quoted field that begins here is not closed" in result.err
    assert list(result.output.parent.iterdir()) == []
    rows[2], rows[-1] = '3,"text 3"\n', '1000,"text\n'
    with pytest.raises(ConfigurationError, match="line 1001: a quoted field"):
        rows_of(write("in.csv", "".join(["id,prompt\n", *rows]).encode()))


def test_a_broken_quote_within_a_line_fails_its_row_alone(write: Write) -> None:
    found = rows_of(write("in.csv", b'id,prompt\n1,"a" b\n2,ok\n'))
    assert found.errors == ["line 2: not valid CSV: ',' expected after '\"'"]
    assert found.rows[1].columns == {"id": "2", "prompt": "ok"}


TSV = b'id\ttext\tlabel\n1\t%s\t0\n2\t"Rome"\t1\n3\tso "it" is"\t1\n'


@pytest.mark.parametrize("text", ['"Yes" she said', '"an open quote', '"', '"""'])
def test_a_tsv_file_that_quotes_nothing(write: Write, text: str) -> None:
    found = rows_of(write("in.tsv", TSV % text.encode()))
    assert [row["text"] for row in found.columns] == [text, '"Rome"', 'so "it" is"']
    assert "its fields are not quoted" in found.notes[0]
    reader = open_file(str(write("in.tsv", TSV % text.encode())))
    assert [row.columns for row in reader] == found.columns  # without a digest before it
    reader.close()


@pytest.mark.parametrize(
    "row",
    [b'4\t"one\ttwo"\t0', b'4\t"one\ntwo"\t0', b'4\t"one ""two"" three"\t0', b"4\tone"],
)
def test_a_tsv_file_that_quotes_something_keeps_its_quotes(write: Write, row: bytes) -> None:
    found = rows_of(write("in.tsv", TSV % b'"Yes" she said' + row + b"\n"))
    assert found.errors[0].startswith("line 2: not valid CSV")
    assert found.rows[1].columns["text"] == "Rome"
    with pytest.raises(ConfigurationError, match="line 2: a quoted field that begins here is not closed"):
        rows_of(write("in.tsv", TSV % b'"an open quote' + row + b"\n"))


def test_a_quote_of_a_later_line_does_not_swallow_rows_of_a_tsv_file(write: Write) -> None:
    found = rows_of(write("in.tsv", b'id\ttext\n1\t"open\n2\tmiddle\n3\tclosed"\n'))
    assert [row["text"] for row in found.columns] == ['"open', "middle", 'closed"']
    assert "its fields are not quoted" in found.notes[0]


def test_lines_in_the_fields_of_a_tsv_file(write: Write) -> None:
    assert rows_of(write("in.tsv", b'id\ttext\n1\t"a\nb"\n2\tc\n')).columns[0]["text"] == "a\nb"
    found = rows_of(write("in.tsv", b'text\n"a\nb"\n"x" y\n'))
    assert (found.rows[0].columns, len(found.errors)) == ({"text": "a\nb"}, 1)


def test_a_tsv_file_with_a_quoted_header_keeps_its_quotes(write: Write) -> None:
    found = rows_of(write("in.tsv", b'"id"\t"text"\n"1"\t"a" b"\n"2"\t"c"\n'))
    assert found.errors[0].startswith("line 2: not valid CSV")
    assert found.rows[1].columns == {"id": "2", "text": "c"}


def test_large_cells_and_many_columns(write: Write) -> None:
    text = "line\n" * 40_000
    found = rows_of(write("in.csv", f'id,prompt\n1,"{text}"\n2,b\n'.encode()))
    assert found.columns[0]["prompt"] == text
    assert found.rows[1].line == 40_003
    names = [f"column {number}" for number in range(20_000)]
    content = ",".join(names) + "\n" + ",".join(map(str, range(20_000))) + "\n"
    assert rows_of(write("wide.csv", content.encode())).columns == [dict(zip(names, map(str, range(20_000))))]  # noqa: B905


def test_a_row_without_end_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.jobs.formats.delimited.MAX_ROW_BYTES", 10_000)
    for content in (b"id,prompt\n1," + b"x" * 20_000 + b"\n", b'id,prompt\n1,"' + b"x\n" * 20_000 + b'"\n'):
        with pytest.raises(ConfigurationError, match="line 2: a row is longer than"):
            rows_of(write("in.csv", content))


def test_wrong_bytes_in_utf8_fail_their_row_alone(write: Write) -> None:
    content = "id,prompt\n" + "".join(f"{number},größer é\n" for number in range(20))
    found = rows_of(write("in.csv", content.encode() + b"20,caf\xe9\n21,ok\n"))
    assert found.errors == ["line 22: not valid UTF-8"]
    assert found.rows[21].columns == {"id": "21", "prompt": "ok"}


@pytest.mark.parametrize(
    "encoding",
    [
        "cp1250",
        "cp850",
        "mac-roman",
        "cp1251",
        "shift_jis",
        "gb18030",
        "koi8-r",
        "euc-kr",
        "big5",
        "iso8859-7",
    ],
)
def test_an_encoding_that_is_not_known_is_one_error(write: Write, generate: Any, encoding: str) -> None:
    texts = {
        "cp1251": "Привет как дела?", "koi8-r": "Привет как дела?", "shift_jis": "こんにちは世界",
        "gb18030": "你好，世界", "cp1250": "zażółć gęślą jaźń", "cp850": "été à Genève", "mac-roman": "été à Genève", "euc-kr": "안녕하세요 세계", "big5": "你好世界", "iso8859-7": "Καλημέρα κόσμε",
    }  # fmt: skip
    path = write(
        "in.csv",
        b"id,prompt\n" + "".join(f"{i},{texts[encoding]}\n" for i in range(5)).encode(encoding),
    )
    result = generate(path)
    assert (result.status, list(result.output.parent.iterdir())) == (1, [])
    assert "the encoding of" in result.err
    assert "--encoding" in result.err
    result = generate(path, "--encoding", encoding, "--template", "{{ prompt }}")
    assert (result.status, result.answers[0]) == (0, texts[encoding])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delimiter", "::"], "--delimiter cannot be '::'"),
        (["--delimiter", ""], "--delimiter cannot be ''"),
        (["--delimiter", '"'], "--delimiter cannot be"),
        (["--encoding", "utf-9"], "--encoding: there is no encoding 'utf-9'"),
        (["--encoding", "base64"], "--encoding: there is no encoding 'base64'"),
    ],
)
def test_wrong_options(write: Write, generate: Any, options: list[str], message: str) -> None:
    result = generate(write("in.csv", b"prompt\na\n"), *options)
    assert (result.status, len(result.err.splitlines())) == (2, 2 if "try" in result.err else 1)
    assert message in result.err


def test_an_encoding_that_does_not_fit_is_one_error(write: Write) -> None:
    for name in ("in.csv", "in.jsonl"):
        with pytest.raises(ConfigurationError, match="is not text in the encoding ascii"):
            rows_of(write(name, '{"prompt": "é"}\n'.encode() * 3), encoding="ascii")


def test_what_is_found_is_told_once(write: Write, generate: Any) -> None:
    result = generate(write("in.csv", "id;prompt\n1;é\n".encode("cp1252")))
    assert (result.status, result.answers) == (0, ["é"])
    told = [line for line in result.err.splitlines() if "in.csv" in line]
    assert len(told) == 1
    assert "its encoding is cp1252; its fields are separated by ';'" in told[0]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("prompt,x,|a,1,|b,2,|", None),  # as some programs end every line
        ("prompt,x,|a,1,|b,2,z|", [None, "z"]),
        ('prompt,x,""|a,1,|b,2,|', [None, None]),  # as Stillhouse writes it
        ('sep=,|prompt,x,""|a,1,|b,2,y|', [None, "y"]),
    ],
)
def test_a_header_that_ends_with_a_delimiter(
    write: Callable[[str, bytes], Path], text: str, last: list[str | None] | None, end: str
) -> None:
    found = rows_of(write("in.csv", text.replace("|", end).encode())).columns
    more: list[dict[str, Any]] = [{}, {}] if last is None else [{"": value} for value in last]
    assert found == [{"prompt": "a", "x": "1", **more[0]}, {"prompt": "b", "x": "2", **more[1]}]


def test_a_last_column_without_a_name_is_written_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt,\na,\nb,x\n")
    for name in ("out.csv", "out.tsv"):
        stillhouse.run(tmp_path / "in.csv", llm="echo", output=tmp_path / name)
        assert [row.columns[""] for row in rows_of(tmp_path / name).rows] == [None, "x"]


def test_files_that_were_joined_have_their_headers_in_the_middle(write: Callable[[str, bytes], Path]) -> None:
    part = codecs.BOM_UTF8 + b"prompt,x\na,1\n"
    found = rows_of(write("in.csv", part + part))
    assert found.errors == [
        "line 3: a byte-order mark and the header again: files were joined; give each as an INPUT"
    ]
    assert [row.columns for row in found.rows if row.error is None] == [{"prompt": "a", "x": "1"}] * 2
