"""The ASGI application: a path for each question of each dialect, and `/healthz`."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler

from brokerkm.guard.authorizer import emqx, rabbitmq, vernemq
from brokerkm.guard.authorizer.judge import Judge
from brokerkm.guard.authorizer.question import MAX_BODY, Answerer, Dialect, MalformedError, Reply

_log = logging.getLogger(__name__)

DIALECTS: Final[Mapping[str, Dialect]] = {
    "rabbitmq": rabbitmq.DIALECT,
    "emqx": emqx.DIALECT,
    "vernemq": vernemq.DIALECT,
}


def make_app(judge: Judge) -> Litestar:
    """Return the application."""

    @get("/healthz", sync_to_thread=False)
    def healthz() -> str:
        return "ok\n"

    routes: list[HTTPRouteHandler] = [healthz]
    for name, dialect in DIALECTS.items():
        routes += [_route(f"/{name}{path}", answer, dialect.denial, judge) for path, answer in dialect.answers.items()]
    return Litestar(routes, openapi_config=None, request_max_body_size=None, logging_config=None)


def _route(path: str, answer: Answerer, denial: Reply, judge: Judge) -> HTTPRouteHandler:
    @post(path, name=path, status_code=200)
    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        try:
            body = await _read(request)
            reply = await answer(judge, request.headers, body)
        except MalformedError as error:
            judge.refuse(f"be understood at {path}", "", str(error))
            reply = denial
        except Exception:  # noqa: BLE001 - whatever it is, it is no reason to let anybody in
            _log.exception("%s: refused, because of a fault", path)
            reply = denial
        return respond(reply)

    return handle


def respond(reply: Reply) -> Response[bytes]:
    """Return a reply as HTTP has it."""
    keep = CacheControlHeader(max_age=reply.max_age) if reply.max_age else CacheControlHeader(no_store=True)
    return Response(reply.body, media_type=reply.media_type, headers={"cache-control": keep.to_header()})


async def _read(request: Request[Any, Any, Any]) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            message = f"body: more than {MAX_BODY} bytes"
            raise MalformedError(message)
    return b"".join(parts)
