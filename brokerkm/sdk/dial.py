"""How a device reaches its broker: by a URL, which may ask it to log in with its identity key.

``login=identity`` among the URL's parameters is for the device (`schemas/README.md`, "Login at a broker"); the adapter
never sees it. A user name that somebody gives counts more.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError
from brokerkm.transport import create

if TYPE_CHECKING:
    from brokerkm.core.member import Member
    from brokerkm.transport import Options, Transport

_NAME: Final = "login"
_IDENTITY: Final = "identity"


def asking_for_identity(url: str) -> str:
    """Return the URL of a broker that lets devices in by their identity keys, to be handed to them."""
    parts = urllib.parse.urlsplit(url)
    if any(name == _NAME for name, _ in map(_pair, _parameters(parts))):
        return url
    return parts._replace(query="&".join((*_parameters(parts), f"{_NAME}={_IDENTITY}"))).geturl()


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """The way to a broker; make one with `dial`.

    Args:
        url: as an adapter takes it.
        by_identity: whether the device logs in with its identity key.
    """

    url: str
    options: Options
    by_identity: bool

    def transport(self, member: Member) -> Transport:
        """Return a member's transport, not yet open."""
        options = self.options
        if self.by_identity:
            username, password = member.login
            options = dataclasses.replace(options, username=username, password=password)
        return create(self.url, options)

    def advice(self, member: Member) -> str:
        """Return what may help whom the broker does not let in; nothing if a name and a password were given."""
        group, name = member.profile.group, member.profile.member
        if self.by_identity:
            return (
                f": it lets this device in neither as a member nor to ask for a place. {name} may have been cut off or "
                f"not be listed yet, or the key server is away: ask the operator of group {group}"
            )
        if self.options.username is None and urllib.parse.urlsplit(self.url).username is None:
            return (
                f"; if devices log in there with their identity keys, add {_NAME}={_IDENTITY} to its URL's parameters"
            )
        return ""


def dial(url: str, options: Options) -> Line:
    """Return the way to a broker; what an adapter can refuse, it refuses here.

    Raises:
        UsageError: the URL or an option cannot be used.
        TransportError: the URL's adapter cannot be imported.
    """
    parts = urllib.parse.urlsplit(url)
    asked = [value for name, value in map(_pair, _parameters(parts)) if name == _NAME]
    if any(value != _IDENTITY for value in asked):
        message = f"the broker's URL: {_NAME}={asked[0][:40]}: the one login that a URL can ask for is {_IDENTITY}"
        raise UsageError(message)
    plain = parts._replace(query="&".join(one for one in _parameters(parts) if _pair(one)[0] != _NAME)).geturl()
    create(plain, options)
    return Line(plain, options, bool(asked) and options.username is None and parts.username is None)


def _parameters(parts: urllib.parse.SplitResult) -> list[str]:
    return [one for one in parts.query.split("&") if one]


def _pair(parameter: str) -> tuple[str, str]:
    name, _, value = parameter.partition("=")
    return name, value
