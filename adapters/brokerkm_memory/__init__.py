"""The transport of URLs ``memory://NAME``: a broker inside the process, for tests and examples.

Every event loop has its own broker for each NAME; it keeps retained payloads for as long as the
loop lives. There is no network, so a connection never breaks and a last will never falls due.
A publisher waits while a subscriber's queue is full.
"""

from brokerkm_memory.transport import MemoryTransport

__all__ = ["MemoryTransport"]
