"""The broker amqtt with its guard: brokerkm as a plugin inside it.

* `gatehouse`: who is at the broker and what they may do; knows nothing of amqtt.
* `entrance`: how clients of amqtt get in, and out again.
* `mending`: faults of amqtt that a fleet would meet.
* `plugin`: what amqtt loads.
* `embedded`: the broker inside `brokerkm serve`.
"""

from brokerkm_amqtt.embedded import EmbeddedBroker
from brokerkm_amqtt.plugin import GuardPlugin

__all__ = ["EmbeddedBroker", "GuardPlugin"]
