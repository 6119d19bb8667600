"""Incoming webhooks: ``POST /v1/hooks/GROUP/RULE``, signed as `brokerkm.automation.signature` says.

The signature is the only credential. A request that is not signed for its rule learns nothing, not even whether there
is such a rule. One that is repeated within the time in which its signature holds is answered as done and does nothing:
the marks of those that were taken are stored with what they have done, so a restart does not forget them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from litestar import Request, Response, Router, post
from litestar.params import FromPath  # noqa: TC002 - Litestar reads it at run time

from brokerkm.automation.rule import Evict, OnWebhook
from brokerkm.automation.signature import WINDOW, verify
from brokerkm.core.names import check_identifier
from brokerkm.errors import BrokerkmError, RefusedError, StoreError, UsageError
from brokerkm.storekey import open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokerkm.automation.memory import Memory
    from brokerkm.automation.rule import Rule
    from brokerkm.automation.runner import Automation
    from brokerkm.service.live import LiveGroup
    from brokerkm.service.server import KeyServer

_log = logging.getLogger(__name__)

MAX_BODY: Final = 65_536  # bytes; a thousand member ids
_MAX_MEMBERS: Final = 1000
_MAX_MARKS: Final = 1000  # requests that a rule takes in ten minutes
_DONE: Final = 200
_UNSIGNED: Final = 401
_BUSY: Final = 429
_IMPOSSIBLE: Final = 422
_UNAVAILABLE: Final = 503


class Answer(NamedTuple):
    """What the caller is told."""

    status: int
    fields: dict[str, Any]


class Hooks:
    """Takes the calls for the rules that `automation` runs on a started server."""

    def __init__(self, server: KeyServer, automation: Automation) -> None:
        self._server: Final = server
        self._automation: Final = automation
        self._busy: Final[set[tuple[str, str]]] = set()

    async def call(self, group: str, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Check a request and run its rule."""
        try:
            live, rule, memory = await self._find(group, name)
            if not isinstance(rule.trigger, OnWebhook):
                return _problem(_UNSIGNED, "this request is not signed for a rule here")
            secret = await asyncio.to_thread(open_source(rule.trigger.secret).read)
            mark, time = verify(secret, headers, body, self._server.clock())
        except StoreError as error:
            _log.error("webhook of group %s: %s", group[:80], error)
            return _problem(_UNAVAILABLE, "the server cannot check this request now: ask again later")
        except (UsageError, RefusedError):
            return _problem(_UNSIGNED, "this request is not signed for a rule here")
        if (group, name) in self._busy:
            return _problem(_BUSY, "another request for this rule is under way: ask again in a second")
        self._busy.add((group, name))
        try:
            return await self._take(live, rule, memory, (mark, time), body)
        finally:
            self._busy.discard((group, name))

    async def _find(self, group: str, name: str) -> tuple[LiveGroup, Rule, Memory]:
        check_identifier(name, "rule")
        live = self._server.groups.get(group)
        if live is None or live.record.frozen:
            message = "no such group serves"
            raise UsageError(message)
        return live, *await self._automation.rule(live, name)

    async def _take(self, live: LiveGroup, rule: Rule, memory: Memory, mark: tuple[str, int], body: bytes) -> Answer:
        now = self._server.clock()
        seen = tuple((one, time) for one, time in memory.seen if time > now - WINDOW)
        if mark[0] in (one for one, _ in seen):
            return Answer(_DONE, {"done": "this request was taken before", "members": []})
        if len(seen) >= _MAX_MARKS:
            return _problem(_BUSY, f"{_MAX_MARKS} requests for this rule came within minutes: ask again later")
        memory = replace(memory, seen=(*seen, mark), ran=int(now * 1000))
        try:
            members = _members(body) if isinstance(rule.action, Evict) else []
            run = await self._automation.hook(live, rule, memory, members, {"signed": mark[1]})
        except UsageError as error:
            return _problem(_IMPOSSIBLE, str(error))
        except BrokerkmError as error:
            _log.warning("webhook of group %s, rule %s: %s", live.name, rule.name, error)
            return _problem(_UNAVAILABLE, "this cannot be done now: ask again later")
        return Answer(_DONE, {"done": run.done, "members": list(run.members)})


def router(hooks: Hooks, path: str = "/v1/hooks") -> Router:
    """Return the webhooks' part of the HTTP API."""

    @post("/{group:str}/{name:str}", status_code=_DONE, request_max_body_size=MAX_BODY)
    async def call_rule(
        group: FromPath[str], name: FromPath[str], request: Request[Any, Any, Any]
    ) -> Response[dict[str, Any]]:
        """Run a rule by a signed request."""
        answer = await hooks.call(group, name, request.headers, await request.body())
        kind = "application/json" if answer.status == _DONE else "application/problem+json"
        return Response(answer.fields, status_code=answer.status, media_type=kind)

    return Router(path, route_handlers=[call_rule], tags=["hooks"])


def _members(body: bytes) -> list[str]:
    try:
        found: Any = json.loads(body)["members"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, list) or not 0 < len(cast("list[object]", found)) <= _MAX_MEMBERS:
        message = f'the body has to be {{"members": [...]}} with 1 to {_MAX_MEMBERS} member ids'
        raise UsageError(message)
    for member in cast("list[object]", found):
        if not isinstance(member, str):
            message = "a member id is text"
            raise UsageError(message)
        check_identifier(member, "member")
    return list(dict.fromkeys(cast("list[str]", found)))


def _problem(status: int, detail: str) -> Answer:
    titles = {_UNSIGNED: "not signed", _BUSY: "too many", _IMPOSSIBLE: "impossible", _UNAVAILABLE: "unavailable"}
    return Answer(status, {"type": "about:blank", "title": titles[status], "status": status, "detail": detail})
