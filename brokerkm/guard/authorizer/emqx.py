"""EMQX's HTTP authentication and authorisation: JSON both ways.

https://docs.emqx.com/en/emqx/latest/access-control/authn/http.html and .../authz/http.html. What the bodies contain is
said in EMQX's configuration: see `deploy/emqx`. An answer that EMQX does not understand is no answer to it, and it goes
on to ask others, so each one is 200 and says what it says.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from brokerkm.guard.authorizer.judge import Action
from brokerkm.guard.authorizer.question import JSON, KEPT, Dialect, MalformedError, Reply, document, text, truth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.guard.authorizer.judge import Judge

DENY: Final = Reply(json.dumps({"result": "deny"}).encode(), JSON)
_CONNECTED: Final = Reply(json.dumps({"result": "allow", "is_superuser": False}).encode(), JSON)
_ALLOW: Final = Reply(json.dumps({"result": "allow"}).encode(), JSON, KEPT)


async def authenticate(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may connect."""
    fields = document(body)
    return _CONNECTED if await judge.connects(text(fields, "username"), text(fields, "password")) else DENY


async def authorize(judge: Judge, _headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer whether somebody may publish on a topic or subscribe a filter."""
    fields = document(body)
    username, topic = text(fields, "username"), text(fields, "topic")
    try:
        action = Action(text(fields, "action"))
    except ValueError:
        message = "action: neither publish nor subscribe"
        raise MalformedError(message) from None
    retain = action is Action.PUBLISH and truth(fields, "retain")
    return _ALLOW if await judge.may(username, action, topic, retain=retain) else DENY


DIALECT: Final = Dialect({"/authenticate": authenticate, "/authorize": authorize}, DENY)
