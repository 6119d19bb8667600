"""Administration of enrollment tokens: invitations made, listed, revoked."""

from __future__ import annotations

from typing import Final

from brokerkm.core.request import TOKEN_ID_SIZE
from brokerkm.descriptor import TOKEN_SECRET_SIZE, Descriptor, EnrollmentToken
from brokerkm.errors import UnknownNameError, UsageError
from brokerkm.service.api import DEFAULT_LIFETIME, TokenInfo
from brokerkm.service.office import Office
from brokerkm.store.records import Change, TokenRecord

MAX_USES: Final = 1_000_000
MAX_LIFETIME: Final = 10 * 365 * 24 * 3600.0  # s; a token that is meant to last longer is a listed key
MAX_NOTE: Final = 200  # characters
MAX_PATTERN: Final = 128  # characters


class Tickets(Office):
    """The part of `AdminApi` that is about enrollment tokens."""

    async def invite(
        self,
        group: str,
        *,
        uses: int = 1,
        lifetime: float = DEFAULT_LIFETIME,
        broker: str | None = None,
        pattern: str = "*",
        note: str = "",
    ) -> Descriptor:
        """Return a descriptor with a new token; the store keeps only the key derived from the token's secret."""
        live = self._group(group)
        url = broker or self._server.broker
        if url is None:
            message = "no broker is known here: name the URL at which the devices reach theirs"
            raise UsageError(message)
        if not (1 <= uses <= MAX_USES and 0 < lifetime <= MAX_LIFETIME):
            message = f"a token has 1 to {MAX_USES} uses and at most {MAX_LIFETIME:.0f} s"
            raise UsageError(message)
        if not 0 < len(pattern) <= MAX_PATTERN or len(note) > MAX_NOTE:
            message = f"a token's pattern has 1 to {MAX_PATTERN} characters, its note up to {MAX_NOTE}"
            raise UsageError(message)
        now = self._server.clock()
        token = EnrollmentToken(self._server.random(TOKEN_ID_SIZE), self._server.random(TOKEN_SECRET_SIZE))
        descriptor = Descriptor(
            broker=url,
            group=live.name,
            prefix=live.record.prefix,
            suite=live.record.suite,
            server_key=live.group.server_key,
            token=token,
            token_expires=int(now + lifetime),
        )
        expiry = int((now + lifetime) * 1000)
        record = TokenRecord(token.id, token.key.key, uses, expiry, pattern, int(now * 1000), note)
        audit = self._entry("invite", token.id.hex(), uses=uses, expiry=expiry, pattern=pattern)
        await self._write(live.name, Change(tokens=[record], audit=[audit]))
        return descriptor

    async def list_tokens(self, group: str) -> list[TokenInfo]:
        """Return the enrollment tokens, oldest first."""
        live = self._group(group)
        records = await self._server.desk.call(self._server.store.tokens, live.name)
        return [
            TokenInfo(one.id.hex(), one.uses_left, one.created, one.expiry, one.pattern, one.note) for one in records
        ]

    async def revoke_token(self, group: str, token_id: str) -> None:
        """Make an enrollment token void."""
        live = self._group(group)
        try:
            key = bytes.fromhex(token_id)
        except ValueError:
            key = b""
        if not key or await self._server.desk.call(self._server.store.token, live.name, key) is None:
            message = f"group {group} has no token {token_id[:80]!r}: it may be used up"
            raise UnknownNameError(message)
        await self._write(live.name, Change(revoked=[key], audit=[self._entry("revoke", key.hex())]))
