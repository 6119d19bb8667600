"""Every error of the API: a JSON object as RFC 9457 has it, and the status that each error of ours gets.

An error says what was wrong with the request; what went wrong inside goes to the log alone.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import ResponseSpec

from brokerkm.errors import BrokerkmError, StateError, StoreError, TransportError, UnknownNameError, UsageError

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
TYPES: Final = "urn:brokerkm:problem:"

_PLAIN: Final = {
    "'data'": "it is missing",
    "Expected `str` matching regex '^[A-Za-z0-9._-]+$'": "it has to be 1 to 64 characters of A-Z a-z 0-9 . _ -",
}
"""What msgspec says, and what it means for people."""

_STATUSES: Final[tuple[tuple[type[BrokerkmError], HTTPStatus, str], ...]] = (
    (UnknownNameError, HTTPStatus.NOT_FOUND, "unknown-name"),
    (StateError, HTTPStatus.CONFLICT, "conflict"),
    (UsageError, HTTPStatus.CONFLICT, "conflict"),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "store"),
    (TransportError, HTTPStatus.SERVICE_UNAVAILABLE, "transport"),
)
"""The first that fits counts."""

_TYPES: Final = {
    HTTPStatus.BAD_REQUEST: "malformed",
    HTTPStatus.UNAUTHORIZED: "unauthenticated",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "no-such-route",
    HTTPStatus.METHOD_NOT_ALLOWED: "wrong-method",
    HTTPStatus.CONFLICT: "conflict",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "wrong-media-type",
    HTTPStatus.UNPROCESSABLE_ENTITY: "invalid",
    HTTPStatus.TOO_MANY_REQUESTS: "too-many-requests",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
}


class Problem(msgspec.Struct, omit_defaults=True, frozen=True):
    """What went wrong, RFC 9457.

    Args:
        type: a name for programs, ``urn:brokerkm:problem:NAME``.
        detail: what happened, and what to do.
        errors: parts of the request that are wrong, by name.
    """

    type: Annotated[str, msgspec.Meta(pattern=r"^urn:brokerkm:problem:[a-z-]+$")]
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    detail: str
    errors: dict[str, str] | None = None


class ProblemError(Exception):
    """A request that is answered with a problem of its own kind."""

    def __init__(self, status: HTTPStatus, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.problem: Final = make(status, detail, kind)
        self.headers: Final = dict(headers or {})


def make(status: HTTPStatus, detail: str, kind: str | None = None, errors: dict[str, str] | None = None) -> Problem:
    """Return a problem; its kind is that of the status if none is named."""
    return Problem(TYPES + (kind or _TYPES.get(status, "failed")), status.phrase, status.value, detail, errors)


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the descriptions of the errors that a route may answer with, besides those that all routes have."""
    always = (400, 401, 403, 422, 429, 500, 503)
    return {
        status: ResponseSpec(
            Problem,
            description=HTTPStatus(status).phrase,
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*always, *statuses})
    }


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return a problem as a response."""
    return Response(
        msgspec.json.encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def describe(error: BaseException) -> Problem:
    """Return the problem that an answer of its own form ends with."""
    problem = _problem(error)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("a request failed", exc_info=error)
    return problem


def handle(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return what a request is answered with that ended in `error`."""
    problem, headers = describe(error), dict[str, str]()
    match error:
        case ProblemError():
            headers = error.headers
        case HTTPException() if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            headers = error.headers or {}
        case _:
            pass
    return respond(problem, headers)


def _problem(error: BaseException) -> Problem:
    problem = make(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed unexpectedly; its log says why")
    match error:
        case ProblemError():
            problem = error.problem
        case ValidationException():
            problem = _invalid(error)
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = make(HTTPStatus(error.status_code), str(error.detail))
        case RecursionError():
            problem = make(HTTPStatus.BAD_REQUEST, "the body is nested too deeply")
        case BrokerkmError():
            found = [(status, name) for kind, status, name in _STATUSES if isinstance(error, kind)]
            if found:
                problem = make(found[0][0], str(error), found[0][1])
        case _:
            pass
    return problem


def _invalid(error: ValidationException) -> Problem:
    """Return the problem of a request that has the wrong form, with what is wrong by name."""
    found: dict[str, str] = {}
    extra = error.extra if isinstance(error.extra, list) else []
    for item in extra:
        name, text = str(item.get("key", "")), str(item.get("message", ""))
        found["body" if name == "data" else name] = _PLAIN.get(text, text)
    words = "; ".join(f"{name}: {text}" for name, text in found.items())
    return make(HTTPStatus.UNPROCESSABLE_ENTITY, words or str(error.detail), errors=found or None)
