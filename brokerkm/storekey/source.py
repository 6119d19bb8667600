"""What every source of the store key does, and the two forms in which a key may be written."""

from __future__ import annotations

from typing import Final, Protocol

from brokerkm.errors import StoreError

KEY_SIZE: Final = 32  # bytes; AES-256
MAX_TEXT: Final = 2 * KEY_SIZE + 2  # bytes; hexadecimal and a line's end


class StoreKey(Protocol):
    """One source of the store key. Neither its `repr` nor any of its errors shows the key.

    Python cannot wipe `bytes`: whoever reads a key lets go of it soon. What the sources themselves read into is zeroed.
    """

    def read(self) -> bytes:
        """Return the key, 32 bytes.

        Raises:
            StoreError: it cannot be had, or is none; says what to do.
        """
        ...

    def create(self) -> None:
        """Make a new key at the source, where there is none yet.

        Raises:
            UsageError: there is one already, or this source cannot make keys; says who can.
            StoreError: it could not be made.
        """
        ...


def parse_key(text: bytearray, where: str) -> bytes:
    """Return the key in `text`, 32 raw bytes or 64 hexadecimal digits; `text` is zeros afterwards.

    Raises:
        StoreError: it is neither.
    """
    try:
        if len(text) == KEY_SIZE:
            return bytes(text)
        if len(text) <= MAX_TEXT:
            stripped = text.strip()
            try:
                if len(stripped) == 2 * KEY_SIZE:
                    return bytes.fromhex(stripped.decode("ascii"))
            except ValueError:
                pass
            finally:
                wipe(stripped)
        message = (
            f"{where} holds {len(text)} bytes that are no store key: it has to be {KEY_SIZE} raw bytes "
            f"or {2 * KEY_SIZE} hexadecimal digits, as `openssl rand -hex {KEY_SIZE}` prints them"
        )
        raise StoreError(message) from None
    finally:
        wipe(text)


def wipe(buffer: bytearray) -> None:
    """Overwrite `buffer` with zeros."""
    buffer[:] = bytes(len(buffer))
