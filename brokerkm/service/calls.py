"""The calls of the control channel: what each takes, checked, and what it gives back, as JSON.

One line a request, one line an answer, each a JSON object of at most `MAX_LINE` bytes:

    {"call": "evict", "with": {"group": "plant", "member": "pump-7", "urgent": true}}
    {"ok": {"epoch": 12, "published": true}}     or     {"error": "usage", "message": "..."}
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from brokerkm.core.crypto import PUBLIC_KEY_SIZE, Suite
from brokerkm.core.policy import Policy
from brokerkm.descriptor import Descriptor
from brokerkm.errors import RefusedError, StoreError, TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from brokerkm.service.api import AdminApi

MAX_LINE: Final = 1 << 20  # bytes; a page of a thousand members takes a fifth of it

ERRORS: Final = {"usage": UsageError, "store": StoreError, "transport": TransportError}


class Parameter(NamedTuple):
    """One argument: how it is read from JSON, and whether it may be left out."""

    read: Callable[[object], object]
    optional: bool = False


def _text(value: object) -> str:
    if type(value) is not str:
        message = "it has to be text"
        raise UsageError(message)
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        message = "it has to be a whole number"
        raise UsageError(message)
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        message = "it has to be a number"
        raise UsageError(message)
    return float(cast("float", value))


def _flag(value: object) -> bool:
    if type(value) is not bool:
        message = "it has to be true or false"
        raise UsageError(message)
    return value


def _identity(value: object) -> bytes:
    try:
        key = bytes.fromhex(_text(value))
    except ValueError:  # a UsageError, too
        key = b""
    if len(key) != PUBLIC_KEY_SIZE:
        message = f"it has to be {2 * PUBLIC_KEY_SIZE} hex digits"
        raise UsageError(message)
    return key


def _suite(value: object) -> Suite:
    try:
        return Suite(_whole(value))
    except ValueError:
        message = f"it has to be one of {', '.join(str(suite.value) for suite in Suite)}"
        raise UsageError(message) from None


def _policy(value: object) -> Policy:
    try:
        return Policy.from_fields(value)
    except RefusedError as error:
        raise UsageError(str(error)) from None


_GROUP: Final = Parameter(_text)
_MEMBER: Final = Parameter(_text)

CALLS: Final[Mapping[str, Mapping[str, Parameter]]] = {
    "create_group": {
        "group": _GROUP,
        "degree": Parameter(_whole, optional=True),
        "suite": Parameter(_suite, optional=True),
        "policy": Parameter(_policy, optional=True),
        "prefix": Parameter(_text, optional=True),
        "beacon_interval": Parameter(_whole, optional=True),
    },
    "list_groups": {},
    "show": {"group": _GROUP},
    "rotate": {"group": _GROUP, "everything": Parameter(_flag, optional=True)},
    "list_members": {"group": _GROUP, "after": Parameter(_text, optional=True)},
    "add_member": {"group": _GROUP, "member": _MEMBER, "identity": Parameter(_identity)},
    "evict": {"group": _GROUP, "member": _MEMBER, "urgent": Parameter(_flag, optional=True)},
    "readmit": {"group": _GROUP, "member": _MEMBER},
    "invite": {
        "group": _GROUP,
        "uses": Parameter(_whole, optional=True),
        "lifetime": Parameter(_number, optional=True),
        "broker": Parameter(_text, optional=True),
    },
}
"""The methods of `AdminApi` by name."""


async def perform(admin: AdminApi, request: object) -> object:
    """Do what a decoded request asks for and return the value to encode; raises what `admin` raises."""
    if not isinstance(request, dict):
        message = "a request is a JSON object"
        raise UsageError(message)
    values = cast("dict[str, object]", request)
    name, given = values.get("call"), values.get("with", {})
    if values.keys() - {"call", "with"} or not isinstance(name, str) or not isinstance(given, dict):
        message = 'a request has "call", a name, and "with", an object'
        raise UsageError(message)
    if name not in CALLS:
        message = f"there is no call {name[:40]!r}; there are: {', '.join(CALLS)}"
        raise UsageError(message)
    arguments = _arguments(name, cast("dict[str, object]", given))
    return to_json(await getattr(admin, name)(**arguments))


def _arguments(name: str, given: Mapping[str, object]) -> dict[str, object]:
    parameters = CALLS[name]
    if unknown := given.keys() - parameters.keys():
        message = f"{name} takes no {', '.join(sorted(unknown))[:80]}"
        raise UsageError(message)
    arguments: dict[str, object] = {}
    for key, parameter in parameters.items():
        if key in given:
            try:
                arguments[key] = parameter.read(given[key])
            except UsageError as error:
                message = f"{name}: {key}: {error}"
                raise UsageError(message) from None
        elif not parameter.optional:
            message = f"{name}: {key} is missing"
            raise UsageError(message)
    return arguments


def to_json(value: object) -> object:
    """Return a result of `AdminApi`, or an argument, as what JSON can say."""
    match value:
        case list():
            return [to_json(item) for item in cast("list[object]", value)]
        case Descriptor():
            return value.to_json()
        case Policy():
            return value.fields
        case bytes():
            return value.hex()
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        case _:
            return value
