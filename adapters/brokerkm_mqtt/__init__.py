"""The transport of URLs ``mqtt://`` and ``mqtts://``: paho-mqtt's protocol engine on asyncio's network.

paho encodes, decodes and keeps the QoS 1 handshakes; asyncio owns the socket and TLS, so there is
no thread and nothing polls. MQTT 5 is spoken where the broker knows it, MQTT 3.1.1 elsewhere. URL::

    mqtts://USER:PASSWORD@HOST:PORT?version=5

Port 1883 (TLS: 8883) unless given. ``version`` is 5 or 3.1.1 and forbids the other.

What MQTT 3.1.1 cannot do: tell a publisher that the access list forbade its message (brokers
acknowledge and drop it), limit what the broker sends at once, end a kept session by itself.
"""

from brokerkm_mqtt.transport import MqttTransport

__all__ = ["MqttTransport"]
