"""Whom one member believes: the group's newest server key as far as it knows, and those before it for certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import load_verify_key
from brokerkm.core.handover import MAX_LINKS
from brokerkm.core.welcome import CERTIFICATE_LIFETIME
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from brokerkm.core.handover import Handover
    from brokerkm.core.memory import Memory
    from brokerkm.core.welcome import Certificate


class Trust:
    """The server keys in a member's memory.

    Args:
        memory: the member's.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory: Final = memory
        self._names: Final = (memory.profile.group, memory.profile.member)
        self.key = load_verify_key(memory.server_key, "server_key")
        self._judged: tuple[Certificate, bool] | None = None

    def follow(self, handover: Handover) -> bool:
        """Believe the newest key of a chain that leads on from the one believed; return whether it does.

        Raises:
            RefusedError: bad-signature; a link is not signed by the key before it.
        """
        memory = self._memory
        links = handover.after(memory.server_key, memory.profile.group)
        for link in links:
            memory.former_keys.append((memory.server_key, link.time))
            memory.server_key = link.key
        del memory.former_keys[:-MAX_LINKS]
        self.key = load_verify_key(memory.server_key, "server_key")
        self._judged = None
        return bool(links)

    def check_certificate(self, certificate: Certificate, member: str, now: int) -> None:
        """Check signature and expiry; `now` is the server's time in ms.

        A former key certifies nobody for longer than it could while it was the server's: who steals it later cannot
        make up certificates that outlast it by more than their lifetime.

        Raises:
            RefusedError: bad-signature or wrong-time.
        """
        group = self._names[0]
        try:
            certificate.verify(self.key, group, member, now)
        except RefusedError as error:
            if error.reason is not Reason.BAD_SIGNATURE:
                raise
            ends = [(key, end + CERTIFICATE_LIFETIME) for key, end in self._memory.former_keys]
            for former in [key for key, end in ends if certificate.expiry <= end]:
                try:
                    certificate.verify(load_verify_key(former, "server_key"), group, member, now)
                except RefusedError:
                    continue
                return
            raise

    def is_by_newest(self, certificate: Certificate) -> bool:
        """Return whether the member's own certificate is by the newest key, so that newcomers believe it too."""
        if self._judged is None or self._judged[0] is not certificate:
            try:
                certificate.verify(self.key, *self._names, 0)
                self._judged = (certificate, True)
            except RefusedError:
                self._judged = (certificate, False)
        return self._judged[1]
