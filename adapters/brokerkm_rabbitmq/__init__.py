"""RabbitMQ's guard: the broker asks `brokerkm guard serve` who may do what, and is told here who has to go.

* `management`: RabbitMQ's HTTP API, as far as it is needed.
* `guard`: disconnects whom the authorisation service does not let in any more.
"""

from brokerkm_rabbitmq.guard import RabbitmqGuard

__all__ = ["RabbitmqGuard"]
