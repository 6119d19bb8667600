"""A server with a store of its own has no others beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    from brokerkm.api import RemoteAdmin


async def test_it_lists_itself_and_moves_nothing(remote: RemoteAdmin) -> None:
    """It leads all groups; one that is to be moved stays, and the error says what would be needed."""
    await remote.create_group("plant")
    (server,) = await remote.servers()
    assert (True, ("plant",)) == (server.live, server.groups)
    with pytest.raises(UsageError, match="this server is alone: groups move between servers that share a PostgreSQL"):
        await remote.move("plant", server.id)
