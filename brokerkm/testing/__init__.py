"""The conformance kit: what every transport must do, as pytest classes that any adapter can run.

In a test module of your adapter, with ``pip install brokerkm[testing]``::

    class TestMine(ReconnectConformance):
        @pytest_asyncio.fixture
        async def site(self):
            async with Cable("127.0.0.1", port_of_your_broker) as cable:
                yield Site(
                    server_url=f"mine://127.0.0.1:{port_of_your_broker}",
                    member_url=f"mine://127.0.0.1:{cable.port}",
                    cut=cable.cut,
                    mend=cable.mend,
                    restart=how_to_restart_your_broker,
                )

What keeps a broker's clients to their own topics has a kit as well: `brokerkm.testing.guard`.

A transport without a network between its ends inherits from `TransportConformance` instead. What a broker
cannot do is declared by class attributes (`TransportConformance.retains_for_wildcards`) and then asserted to be so.
"""

try:
    import pytest
    import pytest_asyncio  # noqa: F401 # pyright: ignore[reportUnusedImport] - the modules below need it
except ImportError as error:
    message = "brokerkm.testing needs pytest and pytest-asyncio: pip install 'brokerkm[testing]'"
    raise ImportError(message) from error
else:
    pytest.register_assert_rewrite(
        "brokerkm.testing.conformance",
        "brokerkm.testing.guard",
        "brokerkm.testing.guarded",
        "brokerkm.testing.reconnection",
    )

from brokerkm.testing.cable import Cable
from brokerkm.testing.conformance import TransportConformance
from brokerkm.testing.reconnection import ReconnectConformance
from brokerkm.testing.site import Ends, Listener, Site

__all__ = ["Cable", "Ends", "Listener", "ReconnectConformance", "Site", "TransportConformance"]
