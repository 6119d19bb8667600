"""The broker's side: who may connect to it, subscribe and publish, and who has to go.

Encryption keeps outsiders from reading. A guard also keeps members to their own topics, everybody but the key server
from writing rekeys, and an evicted device from staying connected (RFC 9594 leaves this to the broker's access control).

* `rules`: what one member may do, by where it sits: plain functions.
* `authority`: who somebody is, by its login (`brokerkm.core.login`) and by what the store knows.
* `seam`: the `BrokerGuard` Protocol that an adapter for a broker implements, found by entry point.
"""
