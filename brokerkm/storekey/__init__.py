"""Where the key that seals the store comes from.

A spec text names the source: ``file:PATH``, ``credential:NAME``, ``env:NAME``, ``command:PROGRAM ARGUMENTS`` or an
RFC 7512 URI ``pkcs11:...``. Whoever can read both the store and its key can read every message, so the two belong to
different places: a backup of the state directory without the key is of no use to a thief.
"""

from brokerkm.storekey.registry import SOURCES, open_source
from brokerkm.storekey.source import KEY_SIZE, StoreKey

__all__ = ["KEY_SIZE", "SOURCES", "StoreKey", "open_source"]
