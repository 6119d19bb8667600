"""The process of the demonstration's broker: ``python -m brokerkm.demo.broker`` prints its URL and serves."""

from __future__ import annotations

import asyncio
import signal

from brokerkm.demo.process import say
from brokerkm.embedded import embedded_broker
from brokerkm.errors import BrokerkmError


async def main() -> None:
    """Serve on a free port of loopback."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with embedded_broker(0, guarded=False) as broker:
        say("serving", url=broker.url)
        await stop.wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except BrokerkmError as failure:
        say("failed", error=str(failure))
