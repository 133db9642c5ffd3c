"""Images of rows: read from folders that the user allowed, sent by their content, and from nowhere else."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, ConfigurationError, FormattedInput, GenerateOutput
from stillhouse.cli.generate.command import generate
from stillhouse.jobs.prompts import image_files, images, pictures
from stillhouse.jobs.prompts.image_files import ImageFolders
from stillhouse.jobs.prompts.images import RowImages
from stillhouse.jobs.prompts.pictures import data_url
from stillhouse.typing import Capability


def png(color: int = 0, size: int = 2) -> bytes:
    """A small image, made without a library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([color, 0, 0]) * size for _ in range(size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


class SeeingLLM(AsyncLLM):
    """Writes down the parts of the last message."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "images", "num_generations"})
    _seen: list[Any] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "seeing"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
        self._seen.append(input)
        return stillhouse.prepare_output(["seen"] * num_generations)


def run(rows: Any, **options: Any) -> tuple[list[Any], Any]:
    """The chats that were sent, and the run."""
    llm = SeeingLLM(max_concurrency=1)
    done = stillhouse.run(rows, llm=llm, show_bar=False, **options)
    return llm._seen, done


def shown(address: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}]}


def urls(chat: Any) -> list[str]:
    return [
        part["image_url"]["url"]
        for message in chat
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def errors(done: Any) -> list[str | None]:
    return [row["error"] and row["error"]["message"] for row in done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An allowed folder, and beside it what nobody may read."""
    allowed = tmp_path / "allowed"
    (allowed / "deep" / "er").mkdir(parents=True)
    (allowed / "a.png").write_bytes(png(1))
    (allowed / "deep" / "er" / "b.png").write_bytes(png(2))
    (tmp_path / "secret.png").write_bytes(png(99))
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "secret.png").write_bytes(png(99))
    return allowed


# Where an image stands in a row


def test_a_path_in_a_message_is_read(folder: Path) -> None:
    names = ["a.png", "deep/er/b.png", "deep/../a.png", str(folder / "a.png"), f"file://{folder}/a.png",
             f"file://localhost{folder}/deep/er/b.png"]  # fmt: skip
    (folder / "with space?x=1.png").write_bytes(png(3))
    names += [f"file://{folder}/with%20space?x=1.png", "with space?x=1.png"]
    seen, done = run([shown(name) for name in names], images_from=folder)
    assert errors(done) == [None] * len(names)
    assert [urls(chat) for chat in seen] == [[url(png(color))] for color in (1, 2, 1, 1, 1, 2, 3, 3)]
    # The rows of the output are those of the input.
    assert [row["messages"] for row in done] == [shown(name)["messages"] for name in names]


def test_addresses_on_the_web_and_data_stay_as_they_are(folder: Path) -> None:
    given = ["https://example.org/a.png?x=1&y=a.png", "http://example.org/a", url(b"no image at all")]
    seen, _ = run([shown(address) for address in given], images_from=folder)
    assert [urls(chat) for chat in seen] == [[address] for address in given]


def test_without_an_allowed_folder_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    seen, done = run([shown("a.png"), shown(f"file://{folder}/a.png")])
    assert seen == []
    assert all("not sent by their name" in (error or "") for error in errors(done))
    seen, done = run([{"prompt": "x", "picture": "a.png"}], image_column="picture")
    assert seen == []
    assert "allow its folder" in (errors(done)[0] or "")


def test_relative_paths_are_relative_to_the_input_where_that_is_allowed(tmp_path: Path, folder: Path) -> None:
    source = folder / "deep" / "rows.jsonl"
    source.write_text(json.dumps(shown("er/b.png")) + "\n")
    seen, _ = run(source, images_from=folder, output=tmp_path / "one.jsonl")
    assert urls(seen[0]) == [url(png(2))]
    seen, _ = run(folder / "deep" / "*.jsonl", images_from=folder, output=tmp_path / "glob.jsonl")
    assert urls(seen[0]) == [url(png(2))]
    other = tmp_path / "rows.jsonl"  # beside the secret, which its folder does not make readable
    other.write_text(json.dumps(shown("secret.png")) + "\n")
    seen, done = run(other, images_from=folder, output=tmp_path / "two.jsonl")
    assert (seen, "is not there" in (errors(done)[0] or "")) == ([], True)


def test_several_folders_are_tried_in_their_order(tmp_path: Path, folder: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    (second / "a.png").write_bytes(png(7))
    (second / "c.png").write_bytes(png(8))
    seen, _ = run([shown("a.png"), shown("c.png"), shown("../second/c.png")], images_from=[folder, second])
    assert [urls(chat) for chat in seen] == [[url(png(1))], [url(png(8))], [url(png(8))]]


COLUMN: dict[str, Any] = {
    "a path": ("a.png", [1]),
    "paths": (["a.png", "deep/er/b.png"], [1, 2]),
    "JSON text": ('["a.png", "deep/er/b.png"]', [1, 2]),
    "a struct with a path": ({"bytes": None, "path": "a.png"}, [1]),
    "bytes in JSON": (base64.b64encode(png(5)).decode(), [5]),
    "a struct with bytes": ({"bytes": base64.b64encode(png(5)).decode(), "path": "/etc/x.png"}, [5]),
    "null": (None, []),
    "an empty text": ("", []),
    "an empty list": ([], []),
}


@pytest.mark.parametrize("value", COLUMN.values(), ids=COLUMN.keys())
def test_a_column_has_images_in_these_forms(folder: Path, value: tuple[Any, list[int]]) -> None:
    seen, done = run([{"prompt": "look", "picture": value[0]}], images_from=folder, image_column="picture")
    assert errors(done) == [None]
    content = seen[0][0]["content"]
    if not value[1]:
        assert content == "look"
        return
    assert urls(seen[0]) == [url(png(color)) for color in value[1]]
    assert content[-1] == {"type": "text", "text": "look"}


def test_bytes_and_structs_of_a_table(folder: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({
        "prompt": ["a", "b", "c"],
        "one": [png(1), None, png(2)],
        "many": pa.array(
            [[{"bytes": png(3), "path": "x.png"}, {"bytes": None, "path": "a.png"}], [], None],
            pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        ),
    })  # fmt: skip
    seen, _ = run(table, image_column="one")
    assert [urls(chat) for chat in map(_listed, seen)] == [[url(png(1))], [], [url(png(2))]]
    seen, _ = run(table, image_column="many", images_from=folder)
    assert [urls(chat) for chat in map(_listed, seen)] == [[url(png(3)), url(png(1))], [], []]


def _listed(chat: Any) -> Any:
    return chat


def test_images_go_where_the_chat_has_places_for_them(folder: Path) -> None:
    place, text = {"type": "image"}, {"type": "text", "text": "and"}
    rows = [
        {"messages": [{"role": "user", "content": [place, text, {**place, "index": None}]}], "picture": ["a.png"] * 2},
        {"messages": [{"role": "user", "content": "<image>\nleft, <image> right"}], "picture": ["a.png"] * 2},
        {"messages": [{"role": "user", "content": "first"}, {"role": "assistant", "content": "y"},
                      {"role": "user", "content": "last"}], "picture": "a.png"},
        {"messages": [{"role": "user", "content": [place, text]}], "picture": ["a.png"] * 2},
        {"messages": [{"role": "system", "content": "x"}], "picture": "a.png"},
    ]  # fmt: skip
    seen, done = run(rows, images_from=folder, image_column="picture")
    image = {"type": "image_url", "image_url": {"url": url(png(1))}}
    assert [chat[-1]["content"] for chat in seen] == [
        [image, text, image],
        [image, {"type": "text", "text": "left, "}, image, {"type": "text", "text": " right"}],
        [image, {"type": "text", "text": "last"}],
    ]
    assert seen[2][0] == {"role": "user", "content": "first"}
    assert "places for 1 images, and the column picture has 2" in (errors(done)[3] or "")
    assert "no message of the user" in (errors(done)[4] or "")


def test_a_column_that_a_row_does_not_have_is_said(folder: Path) -> None:
    rows = [{"prompt": "x", "picture": "a.png"}, {"prompt": "x", "image": "a.png"}]
    _, done = run(rows, images_from=folder, image_column="picture")
    assert errors(done)[0] is None
    assert "no column picture" in (errors(done)[1] or "")
    assert "prompt, image" in (errors(done)[1] or "")
    llm = SeeingLLM()
    with pytest.raises(ConfigurationError, match=r"no.* column pictrue") as raised:
        stillhouse.run(rows, llm=llm, images_from=folder, image_column="pictrue", show_bar=False)
    assert "did you mean 'picture'" in raised.value.hint
    assert llm._seen == []


# What is not read


def unreadable(folder: Path) -> dict[str, str]:
    """Names of files, and a word of why each is refused."""
    outside = folder.parent
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "links").symlink_to(outside / "allowed-not")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "within.png").symlink_to(folder / "a.png")
    (folder / "null.png").symlink_to("/dev/null")
    os.mkfifo(folder / "fifo.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(image_files.MAX_IMAGE_BYTES + 1)
    (folder / "closed.png").write_bytes(png())
    return {
        "link.png": "in no folder",
        "links/secret.png": "in no folder",
        "../secret.png": "in no folder",
        "deep/../../secret.png": "in no folder",
        "../allowed-not/secret.png": "in no folder",
        str(outside / "secret.png"): "in no folder",
        f"file://{outside}/secret.png": "in no folder",
        f"file://{folder}/..%2Fsecret.png": "in no folder",
        f"file://{folder}/%2e%2e/secret.png": "in no folder",
        "FILE:///etc/passwd": "in no folder",
        "file:/etc/passwd": "in no folder",
        "/etc/passwd": "in no folder",
        "null.png": "in no folder",
        "/dev/zero": "in no folder",
        "/proc/self/environ": "in no folder",
        "~/secret.png": "is not there",
        "missing.png": "is not there",
        "a.png/x": "cannot be read",
        "loop.png": "",
        "deep": "a folder",
        ".": "a folder",
        "fifo.png": "a pipe",
        "empty.png": "empty",
        "text.png": "no PNG, JPEG, GIF or WebP",
        "huge.png": "larger than",
        "file://elsewhere/a.png": "no path of this machine",
        "a.png\0": "no path of this machine",
        " ": "no path of this machine",
        "x" * 5000: "",
    }


@pytest.mark.skipif(os.name == "nt", reason="links and pipes")
def test_nothing_else_is_read(folder: Path) -> None:
    names = unreadable(folder)
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        server.bind("socket.png")
    finally:
        os.chdir(here)
    names["socket.png"] = "a socket"
    rows = [shown(name) for name in names] + [
        {"prompt": "x", "picture": name} for name in names if name.strip()
    ]
    with server:
        seen, done = run([shown("within.png"), *rows[: len(names)]], images_from=folder)
        assert [urls(chat) for chat in seen] == [[url(png(1))]]
        for name, error in zip(names, errors(done)[1:], strict=True):
            assert error is not None, name
            assert error.startswith("line "), error
            assert names[name] in error, (name, error)
            assert len(error) < 300
        seen, done = run(
            [{"prompt": "x", "picture": name} for name in names if name.strip()],
            images_from=folder, image_column="picture",
        )  # fmt: skip
    assert seen == []
    assert done.counts.failed == {"invalid_input": len(names) - 1}


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_a_link_that_turns_up_while_a_file_is_opened_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ImageFolders([folder])
    resolved = os.path.realpath
    for victim in (folder / "a.png", folder / "deep"):
        name = "a.png" if victim.name == "a.png" else "deep/er/b.png"

        def swapped(path: Any, victim: Path = victim, **options: Any) -> Any:
            found = resolved(path, **options)
            victim.rename(victim.with_name(f"{victim.name}.away"))
            (folder.parent / "er").mkdir(exist_ok=True)
            (folder.parent / "er" / "b.png").write_bytes(png(99))
            victim.symlink_to(folder.parent / "secret.png" if victim.suffix else folder.parent)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(os.path, "realpath", swapped)
            with pytest.raises(ValueError, match=r"a link|cannot be read"):
                folders.read(name)


@pytest.mark.skipif(os.name == "nt", reason="links")
@pytest.mark.parametrize("seed", range(3))
def test_no_path_leads_out_of_the_allowed_folders(folder: Path, seed: int) -> None:
    """A fuzzer: whatever the names are made of, what is read lies in an allowed folder."""
    chance = random.Random(seed)
    outside = folder.parent
    places = [folder, folder / "deep", folder / "deep" / "er"]
    for number in range(30):  # links of all kinds: within, out, up, and to other links
        target = chance.choice(
            ["..", "../..", str(outside), str(outside / "secret.png"), "/", "a.png", "er", "../a.png", "deep",
             f"link{chance.randrange(30)}", str(outside / "allowed-not"), "../allowed-not/secret.png"]
        )  # fmt: skip
        (chance.choice(places) / f"link{number}").symlink_to(target)
    pieces = [
        "..", ".", "deep", "er", "a.png", "b.png", "secret.png", "allowed", "allowed-not", "", "%2e%2e", "~", "\\",
        str(outside).lstrip("/"), "etc", "passwd", *(f"link{number}" for number in range(30)),
    ]  # fmt: skip
    allowed = {png(1), png(2)}
    folders = ImageFolders([folder], [outside])
    read = 0
    for _ in range(3000):
        name = chance.choice(
            ["", "/", "//", "file://", "file:", "FILE:///", f"{folder}/", f"file://{folder}/"]
        )
        name += chance.choice(["/", "//", "/./"]).join(chance.choices(pieces, k=chance.randrange(1, 6)))
        try:
            content = folders.read(name)
        except ValueError:
            continue
        read += 1
        assert content in allowed, name
    assert read >= 10


def test_the_images_of_a_row_are_bounded_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_ROW_CHARACTERS", 3 * len(url(png(1))))
    rows = [{"prompt": "x", "picture": ["a.png"] * count} for count in (3, 4)]
    _, done = run(rows, images_from=folder, image_column="picture")
    assert [error and "together" in error for error in errors(done)] == [None, True]


# Kinds, orientation and modes


def test_the_type_is_that_of_the_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_pillow", lambda: None)
    heads = {
        "png": b"\x89PNG\r\n\x1a\nx", "jpeg": b"\xff\xd8\xff\xe0x", "gif": b"GIF89ax", "webp": b"RIFF\0\0\0\0WEBPx",
    }  # fmt: skip
    for kind, content in heads.items():
        (folder / "wrong.name").write_bytes(content)
        seen, _ = run([shown("wrong.name")], images_from=folder)
        assert urls(seen[0]) == [url(content, kind)]


def made(mode: str, kind: str, size: tuple[int, int] = (40, 20), **options: Any) -> bytes:
    from PIL import Image

    image = Image.new(mode, size)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(address: str) -> Any:
    from PIL import Image

    head, _, data = address.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{str(image.format).lower()};base64"
    image.load()
    return image


def test_photos_are_sent_upright() -> None:
    image_module = pytest.importorskip("PIL.Image")
    upright = image_module.new("RGB", (40, 20), "white")
    upright.paste("red", (0, 0, 10, 5))  # a corner, at the upper left
    for orientation in range(1, 9):
        back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes it
        turned = upright if orientation == 1 else upright.transpose(back[orientation])
        exif = image_module.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        turned.save(file, "JPEG", exif=exif, quality=100, subsampling=0)
        seen = opened(data_url(file.getvalue(), "x"))
        assert seen.size == (40, 20), orientation
        assert seen.getexif().get(0x0112, 1) == 1
        red, white = seen.getpixel((4, 2)), seen.getpixel((35, 17))
        assert red[1] < 90, orientation
        assert min(white) > 200, orientation
        if orientation == 1:  # untouched
            assert data_url(file.getvalue(), "x") == url(file.getvalue(), "jpeg")


def test_odd_modes_are_sent_as_usual_ones() -> None:
    image_module = pytest.importorskip("PIL.Image")
    assert opened(data_url(made("CMYK", "JPEG"), "x")).mode == "RGB"
    grey = image_module.new("I;16", (4, 4), 0x8000)
    file = io.BytesIO()
    grey.save(file, "PNG")
    seen = opened(data_url(file.getvalue(), "x"))
    assert (seen.mode, seen.getpixel((0, 0))) == ("L", 0x80)
    palette = made("P", "PNG", transparency=0)
    assert data_url(palette, "x") == url(palette)
    frames = [image_module.new("RGB", (4, 4), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert data_url(file.getvalue(), "x") == url(file.getvalue(), "gif")


def test_a_broken_image_fails_its_row_only(folder: Path) -> None:
    pytest.importorskip("PIL.Image")
    photo = made("RGB", "JPEG", (400, 300))
    garbage = bytearray(made("RGB", "JPEG", exif=b"Exif\0\0" + bytes(40)))
    position = garbage.index(b"Exif\0\0") + 6
    garbage[position : position + 30] = os.urandom(30)
    (folder / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (folder / "cut.png").write_bytes(png()[:40])
    (folder / "noise.jpg").write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * 10)
    (folder / "exif.jpg").write_bytes(bytes(garbage))
    (folder / "ok.jpg").write_bytes(photo)
    rows = [shown(name) for name in ("cut.jpg", "cut.png", "noise.jpg", "exif.jpg", "ok.jpg")]
    _, done = run(rows, images_from=folder)
    assert [error is None for error in errors(done)] == [False, False, False, True, True]
    assert all("cannot be decoded" in (error or "") for error in errors(done)[:3])


def test_a_bomb_fails_its_row_only(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    pytest.importorskip("PIL.Image")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for size in (11_000, 60_000):
        header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
        (folder / f"{size}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
        )
    _, done = run([shown("11000.png"), shown("60000.png"), shown("a.png")], images_from=folder)
    assert [error is None for error in errors(done)] == [False, False, True]
    assert not recwarn.list


# The options


class BlindLLM(SeeingLLM):
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images_from": "missing"}, "'missing' is no folder"),
        ({"images_from": ["."], "llm": BlindLLM()}, "reads no images"),
        ({"image_column": "x", "llm": BlindLLM()}, "reads no images"),
        ({"image_column": "x", "raw": True}, "a raw prompt has no images"),
    ],
)
def test_a_wrong_option_is_one_error_before_anything_is_loaded(
    options: Any, words: str, tmp_path: Path
) -> None:
    given = {"llm": SeeingLLM(), "output": tmp_path / "out.jsonl", **options}
    with pytest.raises(ConfigurationError, match=words):
        stillhouse.run([{"prompt": "x"}], **given)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_folder_of_the_command_line_is_usage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "a"}\n')
    for folder in ("missing", str(source)):
        with pytest.raises(SystemExit) as exited:
            generate.main(
                [str(source), "--llm", "echo", "-o", str(tmp_path / "o.jsonl"), "--images-from", folder]
            )
        assert exited.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_reading_stays_in_flat_memory(folder: Path, tmp_path: Path) -> None:
    """Images of ten times the bound of what may be added, one after the other."""
    (folder / "large.gif").write_bytes(b"GIF89a" + os.urandom(4 << 20))
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(shown("large.gif")) + "\n" for _ in range(100)))
    code = (
        "import resource, sys, stillhouse\n"
        "from stillhouse.jobs.prompts import pictures\n"
        "pictures._pillow = lambda: None\n"
        "from tests.jobs.test_row_images import SeeingLLM, run\n"
        "class Forgetful(SeeingLLM):\n"
        "    async def agenerate(self, input, num_generations: int = 1):\n"
        "        return stillhouse.prepare_output(['x'])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"done = stillhouse.run({str(source)!r}, llm=Forgetful(max_concurrency=1), images_from={str(folder)!r},\n"
        f"    output={str(tmp_path / 'out.jsonl')!r}, show_bar=False)\n"
        "assert done.counts.rows == done.counts.done == 100, done.counts\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    root = Path(__file__).parents[2]
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    assert int(printed.stdout) < 400  # a hundred of them are 560 MiB


def test_images_make_no_tokens_in_an_estimate(folder: Path) -> None:
    (folder / "noise.gif").write_bytes(b"GIF89a" + os.urandom(100_000))
    found = stillhouse.estimate([{"prompt": "x", "picture": "a.png"}], llm=SeeingLLM(), image_column="picture",
                                images_from=folder)  # fmt: skip
    assert (found.rows, found.unusable, found.max_input) == (1, 0, None)
    assert found.bytes < 100


def test_a_row_is_left_alone(folder: Path) -> None:
    chat = shown("a.png")["messages"]
    before = repr(chat)
    RowImages(ImageFolders([folder]), "p")({"p": "a.png"}, chat)
    assert repr(chat) == before
