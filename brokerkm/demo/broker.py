"""The process of the demonstration's broker: ``python -m brokerkm.demo.broker`` prints its URL and serves."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from brokerkm.cli.embedded import EmbeddedBroker


async def main() -> None:
    """Serve on a free port of loopback."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with EmbeddedBroker(0) as broker:
        sys.stdout.write(json.dumps({"event": "serving", "url": broker.url}) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
