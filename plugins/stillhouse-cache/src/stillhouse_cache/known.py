"""`KnownKeys`: which keys a database may have, without asking it."""

from __future__ import annotations

__all__ = ["KnownKeys"]


class KnownKeys:
    """A Bloom filter: it has every key that was added, and of others a few too.

    Args:
        bits: its size; with sixteen for each key, one key in seventy that was not added seems to be there.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bytearray(bits // 8 + 1)
        self._size = len(self._bits) * 8

    def add(self, key: bytes) -> None:
        """Add a key: a digest, whose bytes are as good as random."""
        for part in (key[:8], key[8:16]):
            place = int.from_bytes(part) % self._size
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: bytes) -> bool:
        place = int.from_bytes(key[:8]) % self._size
        if not self._bits[place >> 3] & 1 << (place & 7):
            return False
        place = int.from_bytes(key[8:16]) % self._size
        return bool(self._bits[place >> 3] & 1 << (place & 7))
