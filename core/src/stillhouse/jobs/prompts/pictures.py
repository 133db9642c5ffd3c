"""`data_url`: the content of an image as it is sent, its type found in the content and not in a name."""

from __future__ import annotations

import base64
import binascii
import functools
import importlib
import io
import warnings
from typing import Any

__all__ = ["data_url", "type_of", "unpacked"]

MAX_PIXELS = 100_000_000
"""How many pixels an image may have that is decoded."""

# Modes that are sent as they are. The others, such as CMYK and 16 bits of grey, not every backend can show.
_USUAL = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})

_ORIENTATION = 0x0112

# By the orientation in EXIF: the transpositions that make it upright, as Pillow names them.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def type_of(content: bytes) -> str | None:
    """Return the media type of an image by its first bytes; `None` if it is none of those that are sent."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def unpacked(text: str) -> bytes | None:
    """Return the image that a text holds in base64, as JSON holds bytes; `None` if it holds none."""
    if len(text) < 32 or len(text) % 4:
        return None
    try:
        if type_of(base64.b64decode(text[:32], validate=True)) is None:
            return None
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def data_url(content: bytes, told: str) -> str:
    """Return an image as a `data:` address.

    Where Pillow is installed, the image is decoded: one that is broken is refused, and one that lies on its
    side, or has colours that not every backend can show, is sent upright and in usual colours.

    Args:
        content: the bytes of the file.
        told: what an error calls it.

    Raises:
        ValueError: it is no image that can be sent.
    """
    if not content:
        raise ValueError(f"{told} is empty")
    kind = type_of(content)
    if kind is None:
        raise ValueError(f"{told} is no PNG, JPEG, GIF or WebP image")
    pillow = _pillow()
    if pillow is not None:
        kind, content = _usual(pillow, kind, content, told)
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@functools.cache
def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


def _usual(pillow: Any, kind: str, content: bytes, told: str) -> tuple[str, bytes]:
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            pillow.open(io.BytesIO(content), formats=("PNG", "JPEG", "GIF", "WEBP")) as image,
        ):
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{told} has {width:,} x {height:,} pixels, which is too many")
            turn = _UPRIGHT.get(_orientation(image))
            if turn is None and image.mode in _USUAL:
                if kind == "image/jpeg":
                    image.draft(None, (max(1, width // 8), max(1, height // 8)))  # a look is enough
                image.load()
                return kind, content
            return _made_usual(pillow, kind, image, turn)
    except ValueError:
        raise
    except Exception as error:  # whatever a decoder does with bytes that anybody may have made
        raise ValueError(f"{told} cannot be decoded: {type(error).__name__}: {str(error)[:200]}") from None


def _made_usual(pillow: Any, kind: str, image: Any, turn: str | None) -> tuple[str, bytes]:
    image.load()
    made = image
    if (
        image.mode.startswith("I;16") or image.mode == "I"
    ):  # 16 bits of grey; converted, they would be cut off
        made = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode not in _USUAL:
        made = image.convert("RGBA" if "A" in image.mode.upper().replace("LAB", "") else "RGB")
    if turn is not None:
        made = made.transpose(getattr(pillow.Transpose, turn))
    is_photo = kind == "image/jpeg" and made.mode in ("L", "RGB")
    file = io.BytesIO()
    if is_photo:
        made.save(file, "JPEG", quality=95)
    else:
        made.save(file, "PNG")
    return "image/jpeg" if is_photo else "image/png", file.getvalue()


def _orientation(image: Any) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF is often broken, and the image is not
        return None
