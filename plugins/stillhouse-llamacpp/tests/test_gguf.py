from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse import ConfigurationError
from stillhouse_llamacpp.gguf import read_header

Make = Callable[..., bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_header(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


def test_header_of_a_complete_file_is_read(path: Path, gguf: Make) -> None:
    content = gguf()
    path.write_bytes(content)
    header = read_header(path)
    assert (header.architecture, header.tensors, header.bytes) == ("llama", 1, len(content))
    assert not header.has_chat_template


def test_a_type_of_blocks_is_sized_by_its_blocks(path: Path, gguf: Make) -> None:
    content = gguf(tensor_type=2)  # Q4_0: 64 elements are 36 bytes
    path.write_bytes(content)
    assert read_header(path).bytes == len(content) - 256 + 36


def test_tensor_of_an_unknown_type_is_checked_up_to_its_start(path: Path, gguf: Make) -> None:
    content = gguf(tensor_type=999)
    path.write_bytes(content)
    assert read_header(path).bytes == len(content) - 256


def test_a_file_cut_off_anywhere(path: Path, gguf: Make) -> None:
    content = gguf()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        message = refused(path)
        if length >= 4:
            assert "cut off" in message


def test_missing_path_and_folder_are_refused(path: Path) -> None:
    assert "No such file" in refused(path)
    path.mkdir()
    assert "folder" in refused(path)


def test_an_empty_file(path: Path) -> None:
    path.write_bytes(b"")
    assert "is empty" in refused(path)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"PK\3\4" + b"\0" * 100])
def test_file_of_another_format_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a GGUF file" in refused(path)


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_file_of_an_unsupported_gguf_version_is_refused(path: Path, gguf: Make, version: int) -> None:
    path.write_bytes(gguf(version=version))
    assert str(version) in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**63),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**63),
        struct.pack("<4sIQQQ4sIIQ", b"GGUF", 3, 0, 1, 4, b"list", 9, 8, 2**63),
    ],
    ids=["tensors", "pairs", "length of a key", "length of a list"],
)
def test_header_with_implausible_numbers_is_reported_as_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content + b"\0" * 64)
    assert "damaged" in refused(path)


@pytest.mark.model
def test_the_real_model_ends_where_its_header_says(weights: Path) -> None:
    header = read_header(weights)
    assert header.architecture == "llama"
    assert header.has_chat_template
    assert header.bytes == weights.stat().st_size
