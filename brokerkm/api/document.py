"""The API's OpenAPI document: what Litestar derives from the routes, and what holds for all of them beside that."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.serialization import encode_json

from brokerkm.api.problems import MEDIA_TYPE, Problem
from brokerkm.service.rows import FORMATS

if TYPE_CHECKING:
    from brokerkm.service.credentials import Role

PATH: Final = "/openapi.json"
CONFIG: Final = OpenAPIConfig(title="brokerkm", version=version("brokerkm"), path="/schema", create_examples=False)

_ALWAYS: Final = (400, 401, 403, 422, 429, 500, 503)
_CHANGING: Final = (409, 413)
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A request with the key of an earlier one is not done again, but answered as that was, for a day.",
    "schema": {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255},
}


def complete(schema: Mapping[str, Any], handlers: Mapping[str, HTTPRouteHandler]) -> dict[str, Any]:
    """Return the document with what all routes share: errors, idempotency keys, roles, ways to authenticate.

    Args:
        handlers: by operation id.
    """
    document = cast("dict[str, Any]", _loose(msgspec.json.decode(encode_json(schema))))
    (_, found), components = msgspec.json.schema_components(
        [Problem, Problem], ref_template="#/components/schemas/{name}"
    )
    document["components"]["schemas"].update(components)
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "On TLS; on the Unix socket the user is enough."}
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            handler = handlers[operation["operationId"]]
            statuses = [*_ALWAYS, *((404,) if "{" in path or path.startswith(("/v1/audit", "/v1/guard")) else ())]
            if method != "get":
                statuses += _CHANGING
                if not handler.opt.get("repeatable"):
                    operation.setdefault("parameters", []).append(_KEY)
            _take_in(operation, statuses, found)
            role: Role = handler.opt["role"]
            operation["description"] = f"{operation.get('description', '')}\n\nNeeds the role {role.value}.".strip()
            operation["security"] = [{"bearer": []}]
            operation["x-brokerkm-role"] = role.value
            if handler.opt.get("repeatable"):
                schema_ = {"schema": {"type": "string"}}
                operation["requestBody"] = {"required": True, "content": dict.fromkeys(FORMATS, schema_)}
                operation["responses"]["415"] = _error(415, found)
    return document


def _loose(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the document with anyOf for oneOf: 0 is both an integer and a number."""
    match value:
        case dict():
            found = cast("dict[str, Any]", value)
            return {"anyOf" if name == "oneOf" else name: _loose(item) for name, item in found.items()}
        case list():
            return [_loose(item) for item in cast("Iterable[object]", value)]
        case _:
            return value


def _take_in(operation: dict[str, Any], statuses: list[int], problem: Mapping[str, Any]) -> None:
    for status in sorted(statuses):
        operation["responses"][str(status)] = _error(status, problem)


def _error(status: int, problem: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": problem}}}
