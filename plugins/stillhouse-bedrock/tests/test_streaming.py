"""`converse-stream`: its framing, of which botocore is the judge, and what its events add up to."""

from __future__ import annotations

import itertools
import struct
from binascii import crc32
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_bedrock import BedrockLLM
from stillhouse_bedrock.frames import DAMAGED, FrameReader

from .conftest import CHAT, KEYS, MODEL, answer, block, frame, refused, streamed

eventstream: Any = pytest.importorskip("botocore.eventstream")

TEXT = block(0, *({"text": text} for text in ("The Uca", "yali", ".")))
HELLO = streamed(TEXT)


def loaded(server: ScriptedServer, **fields: Any) -> BedrockLLM:
    given = {"base_url": server.origin, "api_key": "key", "retry_timeout": 5, **fields}
    return BedrockLLM(model=MODEL, **given)


def read(raw: bytes, *cuts: int) -> list[Any]:
    reader, places = FrameReader(), [0, *sorted(cuts), len(raw)]
    return [event for start, end in itertools.pairwise(places) for event in reader.add(raw[start:end])]


def test_botocore_reads_the_same() -> None:
    """The messages that these tests make are those of AWS, and are read alike."""
    raw = b"".join([*HELLO, frame("throttlingException", {"message": "No"}, "exception")])
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(raw)
    names = [message.headers.get(":event-type") or message.headers[":exception-type"] for message in buffer]
    assert [next(iter(event)) for event in read(raw)] == names


def test_headers_of_every_type_are_skipped() -> None:
    values = [
        (0, b""), (1, b""), (2, b"a"), (3, b"ab"), (4, b"abcd"), (5, b"abcdefgh"), (8, b"abcdefgh"),
        (9, b"a" * 16), (6, b"\0\3abc"), (7, b"\0\3abc"), (7, b"\0\4ping"),
    ]  # fmt: skip
    names = [b"h"] * (len(values) - 1) + [b":event-type"]
    headers = b"".join(
        bytes([len(name)]) + name + bytes([kind]) + value
        for name, (kind, value) in zip(names, values, strict=True)
    )
    prelude = struct.pack("!II", 16 + len(headers), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers
    assert read(message + struct.pack("!I", crc32(message))) == [{"ping": {}}]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(cuts=st.lists(st.integers(0, len(b"".join(HELLO))), max_size=12))
def test_the_pieces_of_a_stream_may_be_any(cuts: list[int]) -> None:
    raw = b"".join(HELLO)
    assert read(raw, *cuts) == read(raw)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(place=st.integers(0, len(b"".join(HELLO)) - 1), value=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_stream_gives_nothing_behind_the_damage(place: int, value: int, cut: bool) -> None:
    raw, whole = bytearray(b"".join(HELLO)), read(b"".join(HELLO))
    raw[place] ^= value
    try:
        events = read(bytes(raw[: place + 200] if cut else raw))
    except ValueError:
        assert place < len(HELLO[0])
        return
    good = [event for event in events if DAMAGED not in event]
    assert good == whole[: len(good)]
    assert len(events) - len(good) <= 1
    assert len(good) < len(whole)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_what_is_no_stream_is_refused_or_waits_for_more(raw: bytes) -> None:
    try:
        assert read(raw) == []
    except ValueError:
        assert len(raw) >= 12


def test_a_message_that_says_it_is_huge_is_not_waited_for() -> None:
    prelude = struct.pack("!II", 2**31, 8)
    with pytest.raises(ValueError, match="2147483648 bytes"):
        read(prelude + struct.pack("!I", crc32(prelude)))


@pytest.mark.parametrize("fields", [{}, {"api_key": None, "region": "eu-west-1", **KEYS}])
def test_an_answer_comes_in_pieces_of_its_text(server: ScriptedServer, fields: dict[str, Any]) -> None:
    server.script = [Reply(body=b"".join(HELLO))]
    with loaded(server, **fields) as llm:
        *pieces, output = llm.stream(CHAT)
        (whole,) = llm.generate_outputs([CHAT])
    assert pieces == ["The Uca", "yali", "."]
    assert output == whole
    asked, plain = server.requests
    assert (asked.path, asked.body) == (f"{plain.path}-stream", plain.body)


def test_thoughts_and_calls_are_those_of_an_answer_in_one_piece(server: ScriptedServer) -> None:
    use = {"toolUseId": "t1", "name": "length_of"}
    thought = {"reasoningText": {"text": "Hm, well.", "signature": "sig"}}
    server.respond = lambda path, body: answer(
        {"reasoningContent": thought},
        {"reasoningContent": {"redactedContent": "YWJjZA=="}},
        {"text": "Let me look."},
        {"toolUse": {**use, "input": {"river": "Ucayali"}}},
        stop="tool_use", cacheReadInputTokens=3,
    )  # fmt: skip
    thoughts = [{"text": "Hm, "}, {"text": "well."}, {"signature": "sig"}]
    server.script = [
        Reply(
            body=b"".join(
                streamed(
                    block(0, *({"reasoningContent": part} for part in thoughts)),
                    block(1, *({"reasoningContent": {"redactedContent": part}} for part in ("YWI=", "Y2Q="))),
                    block(2, {"text": "Let me look."}),
                    block(
                        3,
                        *({"toolUse": {"input": part}} for part in ('{"river": "Uca', 'yali"}')),
                        start={"toolUse": use},
                    ),
                    stop="tool_use",
                    cacheReadInputTokens=3,
                )
            )
        )
    ]
    with loaded(server) as llm:
        *pieces, output = llm.stream(CHAT)
        (whole,) = llm.generate_outputs([CHAT])
    assert pieces == ["Let me look."]
    assert output == whole
    assert output["reasoning"] == ["Hm, well."]  # type: ignore[index]


def test_what_a_guardrail_withdraws_is_none(server: ScriptedServer) -> None:
    server.script = [Reply(body=b"".join(streamed(TEXT, stop="guardrail_intervened")))]
    with loaded(server) as llm:
        *pieces, output = llm.stream(CHAT)
    assert "".join(pieces) == "The Ucayali."  # type: ignore[arg-type]
    assert output["generations"] == [None]  # type: ignore[index]


THROTTLED = frame("throttlingException", {"message": "Too many requests"}, "exception")


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (THROTTLED, "rate_limit"),
        (frame("modelStreamErrorException", {"originalStatusCode": 400}, "exception"), "invalid_request"),
        (frame("modelStreamErrorException", {"message": "it broke"}, "exception"), "server"),
        (frame("unheardOfException", b"not JSON", "exception"), "connection"),
        (frame("unheardOfException", {}, "exception"), "server"),
        (frame("messageStop", b"\xff"), "connection"),
        (b"\0" * 40, "connection"),
    ],
)
def test_an_error_in_the_middle_has_its_kind(server: ScriptedServer, ending: bytes, kind: str) -> None:
    server.script = [Reply(body=b"".join(HELLO[:2]) + ending)]
    with loaded(server) as llm, pytest.raises(GenerationError) as caught:
        list(llm.stream(CHAT))
    assert caught.value.kind == kind


@pytest.mark.usefixtures("at_once")
def test_an_error_before_the_first_piece_is_retried(server: ScriptedServer) -> None:
    server.script = [Reply(body=HELLO[0] + THROTTLED), Reply(body=b"".join(HELLO))]
    with loaded(server) as llm:
        *pieces, _ = llm.stream(CHAT)
    assert pieces == ["The Uca", "yali", "."]


@pytest.mark.parametrize(
    "refusal",
    [
        refused(400, "ValidationException", "This model doesn't support tool use in streaming mode."),
        refused(
            403, "AccessDeniedException",
            "User is not authorized to perform: bedrock:InvokeModelWithResponseStream",
        ),
    ],
    ids=["model", "permission"],
)  # fmt: skip
def test_what_may_not_be_streamed_comes_at_once(server: ScriptedServer, refusal: Reply) -> None:
    server.script = [refusal]
    with loaded(server) as llm:
        piece, output = llm.stream(CHAT)
    assert [piece] == output["generations"] == ["The Ucayali."]  # type: ignore[index]


def test_a_page_instead_of_a_stream_is_an_error(server: ScriptedServer) -> None:
    server.always = Reply(body=b"<html><body>Please sign in.</body></html>")
    with loaded(server, retry_timeout=0) as llm, pytest.raises(GenerationError) as caught:
        list(llm.stream(CHAT))
    assert caught.value.kind in ("connection", "server", "invalid_request")
    assert "damaged" not in str(caught.value)
