"""Runs amqtt until it is terminated: amqtt_server.py PORT."""

import asyncio
import signal
import sys
from asyncio import StreamReader, StreamWriter

from amqtt.broker import Broker


class Server(Broker):
    """Hangs up on a client that it has tripped over, as Python's own servers do since 3.11.3."""

    async def stream_connected(self, reader: StreamReader, writer: StreamWriter, listener_name: str) -> None:
        """Serve one client."""
        try:
            await super().stream_connected(reader, writer, listener_name)
        except Exception:
            writer.close()
            raise


async def main(port: int) -> None:
    """Serve on loopback, to everybody."""
    broker = Server(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await broker.start()
    print("ready", flush=True)  # noqa: T201 - the fixture waits for it
    await stop.wait()
    await broker.shutdown()


asyncio.run(main(int(sys.argv[1])))
