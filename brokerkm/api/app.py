"""The ASGI application of the HTTP API: gate, idempotency, routes."""

import asyncio
import re
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler

from brokerkm.api import (
    document,
    problems,
    routes_admission,
    routes_cluster,
    routes_groups,
    routes_guard,
    routes_members,
    routes_rules,
    routes_server,
    routes_store,
    routes_tokens,
)
from brokerkm.api.forwarding import Forwarding
from brokerkm.api.gate import MAX_BODY, Gate, Limits
from brokerkm.api.idempotency import SECRET, Idempotency
from brokerkm.api.principal import STATE, Principal
from brokerkm.api.problems import ProblemError
from brokerkm.automation import Automation, RuleBook, webhook
from brokerkm.service.admin import Admin
from brokerkm.service.credentials import Role
from brokerkm.service.server import KeyServer

VERSION: Final = "/v1"

_ROUTES: Final[list[HTTPRouteHandler]] = [
    *routes_groups.ROUTES,
    *routes_members.ROUTES,
    *routes_admission.ROUTES,
    *routes_guard.ROUTES,
    *routes_tokens.ROUTES,
    *routes_server.ROUTES,
    *routes_rules.ROUTES,
    *routes_cluster.ROUTES,
    *routes_store.ROUTES,
]


@get(document.PATH, include_in_schema=False, role=Role.VIEWER)
async def show_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show the OpenAPI document of the API."""
    return Response(request.app.state.document, media_type="application/json")


def make_app(
    server: KeyServer,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    roles: dict[str, Role] | None = None,
    stopping: asyncio.Event | None = None,
    automation: Automation | None = None,
) -> Gate:
    """Return the API of a started server.

    Args:
        roles: of client certificates, by common name.
        stopping: set when streams have to end.
        automation: what runs the server's rules, if they are run.
    """
    automation = automation or Automation(server)
    inner = Litestar(
        [Router(VERSION, route_handlers=_ROUTES), show_document],
        dependencies={
            "admin": Provide(_acting, sync_to_thread=False),
            "book": Provide(_acting_book, sync_to_thread=False),
        },
        guards=[_check_role, _check_query],
        exception_handlers={Exception: problems.handle},
        openapi_config=document.CONFIG,
        request_max_body_size=MAX_BODY,
        logging_config=None,
        state=State(
            {
                "admin": server.admin,
                "book": RuleBook(server, automation),
                "stopping": stopping or asyncio.Event(),
                "followers": list[str](),
            }
        ),
    )
    handlers = {str(handler.operation_id): handler for handler in _ROUTES}
    whole = document.complete(inner.openapi_schema.to_schema(), handlers)
    inner.state.document = msgspec.json.encode(whole)
    inner.state.parameters = {
        operation["operationId"]: {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        for item in whole["paths"].values()
        for operation in item.values()
    }
    hooks = Litestar([webhook.router(webhook.Hooks(server, automation))], openapi_config=None, logging_config=None)
    forwarding = Forwarding(server)
    routes = Idempotency(forwarding.cover("routes", inner), server)
    unlocked = {f"{VERSION}/hooks/": forwarding.cover("hooks", hooks)}
    return Gate(routes, server, limits, roles or {}, unlocked)


def _acting(request: Request[Any, Any, Any]) -> Admin:
    """Return the administration in the name of whoever asks."""
    admin: Admin = request.app.state.admin
    return admin.acting(_principal(request).actor)


def _acting_book(request: Request[Any, Any, Any]) -> RuleBook:
    """Return the rules in the hands of whoever asks."""
    book: RuleBook = request.app.state.book
    return book.acting(_principal(request).actor)


def _principal(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    principal: Principal = connection.scope["state"][STATE]
    return principal


def _check_role(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let those pass whose role covers the route's; what names no role is for nobody."""
    principal, needed = _principal(connection), handler.opt.get("role")
    if needed is None or not principal.role.covers(needed):
        message = f"this needs the role {needed or 'of nobody'}; {principal.name} has the role {principal.role}"
        raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", message)
    connection.scope["state"][SECRET] = handler.opt.get("secret", False)


def _check_query(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Refuse query parameters that a route does not have: a filter with a slip in its name would mean everybody."""
    known: set[str] = connection.app.state.parameters.get(getattr(handler, "operation_id", None), set())
    if unknown := [name for name in connection.query_params if name not in known]:
        name = re.sub(r"[^\x20-\x7e]", "?", str(unknown[0]))[:40]
        message = f"there is no query parameter {name!r} here; there are: {', '.join(sorted(known)) or 'none'}"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", message)
