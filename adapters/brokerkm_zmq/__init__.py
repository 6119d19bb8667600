"""ZeroMQ for brokerkm: the server is the hub, there is no broker. See `transport`."""

from brokerkm_zmq.transport import ZmqTransport

__all__ = ["ZmqTransport"]
