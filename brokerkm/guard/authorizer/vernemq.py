"""VerneMQ's webhooks: JSON both ways, the hook named by a header.

https://docs.vernemq.com/plugin-development/webhookplugins. VerneMQ remembers an answer for as long as ``max-age`` says,
and asks again for all else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from brokerkm.guard.authorizer.judge import Action
from brokerkm.guard.authorizer.question import JSON, KEPT, Dialect, MalformedError, Reply, document, text, truth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.guard.authorizer.judge import Judge

DENY: Final = Reply(json.dumps({"result": {"error": "not_allowed"}}).encode(), JSON)
_MAX_TOPICS: Final = 256  # of one SUBSCRIBE
_REFUSED: Final = {"auth_on_subscribe": 0x80, "auth_on_subscribe_m5": 0x87}  # MQTT's codes in a SUBACK
_OK: Final = {"result": "ok"}


async def hook(judge: Judge, headers: Mapping[str, str], body: bytes) -> Reply:
    """Answer one of the hooks."""
    fields = document(body)
    name = headers.get("vernemq-hook", "")
    username = text(fields, "username")
    match name:
        case "auth_on_register" | "auth_on_register_m5":
            return _say(await judge.connects(username, text(fields, "password")), 0)
        case "auth_on_publish" | "auth_on_publish_m5":
            topic, retain = text(fields, "topic"), truth(fields, "retain")
            return _say(await judge.may(username, Action.PUBLISH, topic, retain=retain), KEPT)
        case "auth_on_subscribe" | "auth_on_subscribe_m5":
            return await _subscribe(judge, username, fields, name)
        case _:
            message = "vernemq-hook: none of auth_on_register, auth_on_publish, auth_on_subscribe, or these with _m5"
            raise MalformedError(message)


async def _subscribe(judge: Judge, username: str, fields: dict[str, Any], name: str) -> Reply:
    """Answer for each filter; VerneMQ refuses those with a code of refusal."""
    asked = fields.get("topics")
    if not isinstance(asked, list) or not 0 < len(cast("list[object]", asked)) <= _MAX_TOPICS:
        message = f"topics: no list of 1 to {_MAX_TOPICS}"
        raise MalformedError(message)
    granted: list[dict[str, object]] = []
    allowed = True
    for one in cast("list[object]", asked):
        if not isinstance(one, dict):
            message = "topics: no list of objects"
            raise MalformedError(message)
        entry = cast("dict[str, object]", one)
        fits = await judge.may(username, Action.SUBSCRIBE, text(entry, "topic"))
        allowed &= fits
        granted.append(entry if fits else entry | {"qos": _REFUSED[name]})
    if allowed:
        return _say(allowed, KEPT)
    given = {"modifiers": {"topics": granted}} if name.endswith("_m5") else {"topics": granted}
    return Reply(json.dumps(_OK | given).encode(), JSON)


def _say(allowed: bool, max_age: int) -> Reply:  # noqa: FBT001 - the verdict
    return Reply(json.dumps(_OK).encode(), JSON, max_age) if allowed else DENY


DIALECT: Final = Dialect({"/hook": hook}, DENY)
