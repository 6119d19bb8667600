"""The in-process transport: the conformance kit, and what only it refuses."""

from __future__ import annotations

import pytest

from brokerkm.errors import TransportError, UsageError
from brokerkm.testing import Ends, Site, TransportConformance
from brokerkm.transport import Options, Outgoing, create


class TestMemory(TransportConformance):
    """The kit, without a network to cut."""

    @pytest.fixture
    def site(self) -> Site:
        """Use a broker of the test's own event loop."""
        return Site(server_url="memory://test", member_url="memory://test")

    async def test_names_are_apart(self, ends: Ends) -> None:
        """What is published under one name does not reach another."""
        member = await ends.member()
        await member.subscribe([ends.topic("1")])
        other = create("memory://other", Options())
        await other.open()
        await other.publish(Outgoing(ends.topic("1"), b"other"))
        await other.close()
        await (await ends.server()).publish(Outgoing(ends.topic("1"), b"same"))
        events = member.incoming()
        await anext(events)
        assert getattr(await anext(events), "payload", None) == b"same"

    async def test_full_queue_fails_the_publisher_in_time(self, ends: Ends) -> None:
        """A subscriber that takes nothing makes a publisher fail, not wait for ever."""
        server, member = await ends.server(timeout=0.1), await ends.member(queue_size=1)
        await member.subscribe([ends.topic("1")])
        with pytest.raises(TransportError, match="took nothing"):
            await server.publish_batch([Outgoing(ends.topic("1"), b"")] * 2)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("memory://", Options()),
        ("memory://x", Options(password="secret")),
        ("memory://x", Options(ca_file="ca.pem")),
        ("memory://x", Options(session_expiry=1)),
        ("memory://x?a=b", Options()),
    ],
)
def test_options_without_meaning_are_refused(url: str, options: Options) -> None:
    """What makes no sense inside one process is a mistake."""
    with pytest.raises(UsageError):
        create(url, options)
