"""`mosquitto-dynsec`: keeps the clients and roles of Mosquitto's dynamic security as the store says.

Mosquitto 2.0 writes its whole file anew at each command, so this is for some hundreds of members and refuses more than
`MAX_MEMBERS`. A change of a client's roles disconnects it, a change of a role's rules does not: a move changes rules.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeVar, cast

from brokerkm.core.login import Principal
from brokerkm.errors import TransportError, UsageError
from brokerkm.guard.passwords import Passwords
from brokerkm.guard.rules import Rank
from brokerkm.guard.seam import Difference
from brokerkm_mosquitto.line import ControlLine
from brokerkm_mosquitto.roles import Role, Rule, group_role, member_role, names_of, of_group, of_member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from brokerkm.guard.fleet import Fleet, GuardedGroup
    from brokerkm.guard.rules import Grant

TOPIC: Final = "$CONTROL/dynamic-security/v1"
MAX_MEMBERS: Final = 1000
_AT_ONCE: Final = 20  # commands in a message; meanwhile the broker does nothing else
_PAGE: Final = 100  # clients or roles in an answer
_ROLE_PRIORITY: Final = 2  # of a member's role, before its group's
_GROUP_PRIORITY: Final = 1
_DEFAULTS: Final = {
    "publishClientSend": False,
    "publishClientReceive": False,  # what it defaults to would let subscriptions go on whose role is gone
    "subscribe": False,
    "unsubscribe": True,
}

Command = dict[str, Any]
T = TypeVar("T")


class _Client(NamedTuple):
    """A client of ours at the broker."""

    mark: str  # its text name, which says from what its password was made
    roles: frozenset[str]
    disabled: bool


class _Rights(NamedTuple):
    """All that is ours at the broker, or should be."""

    roles: dict[str, Role]
    clients: dict[str, _Client]


class MosquittoDynsecGuard:
    """`brokerkm.guard.seam.BrokerGuard`; see there for the options."""

    by_identity: ClassVar = False

    def __init__(self, fleet: Fleet, options: Mapping[str, str]) -> None:
        self._fleet: Final = fleet
        if "password" not in options:
            message = "mosquitto-dynsec needs a user of the broker with a password: [broker] username and password"
            raise UsageError(message)
        self._passwords: Final = Passwords(options["password"])
        self._mark: Final = f"brokerkm {self._passwords.fingerprint}"
        self._line: Final = ControlLine(TOPIC, options, _batch_of)
        self._batches: Final = itertools.count(1)
        self._there: _Rights | None = None  # what the broker has, since it was compared
        self._turn: Final = asyncio.Lock()

    async def open(self) -> None:
        """Reach the broker; raises `TransportError` if it has no dynamic security, or not for us."""
        await self._line.open()
        try:
            await self._do([{"command": "getDefaultACLAccess"}])
        except BaseException:
            await self._line.close()
            raise

    async def close(self) -> None:
        """Let go of the broker, which goes on guarding."""
        await self._line.close()

    async def admit(self, grant: Grant) -> None:
        """Give a member what it may do, in place of what it could before."""
        there = self._compared()
        group = (await self._fleet.groups()).get(grant.topics.group)
        if group is None:
            return  # it was destroyed meanwhile, and `forget` is on its way
        role, client = self._wanted(grant, group)
        username = Principal(grant.topics.group, grant.member).username
        if username not in there.clients and len(there.clients) >= MAX_MEMBERS:
            raise _too_many(len(there.clients) + 1)
        name = member_role(grant.topics.group, grant.member)
        wanted = _Rights({name: role}, {username: client})
        found = _Rights(_only(there.roles, name), _only(there.clients, username))
        await self._apply(found, wanted)

    async def evict(self, group: str, member: str) -> None:
        """Take from a member all that it could do, and disconnect it."""
        there = self._compared()
        username, name = Principal(group, member).username, member_role(group, member)
        await self._apply(_Rights(_only(there.roles, name), _only(there.clients, username)), _Rights({}, {}))

    async def forget(self, group: str) -> None:
        """Take from all members of a group what they could do."""
        found = _owned_by(group, await self._found())
        await self._apply(found, _Rights({}, {}))

    async def diff(self) -> AsyncIterator[Difference]:
        """Yield where the broker's clients and roles differ from the store."""
        if not await self._denies():
            yield Difference("", "", "the broker allows by default what no rule forbids")
        found, wanted = await self._found(), await self._desired()
        for group, member, what in _differences(found, wanted):
            yield Difference(group, member, what)

    async def sync(self, progress: Callable[[int, int], None]) -> int:
        """Make the broker as the store says; progress is in commands."""
        wanted = await self._desired()
        count = 0
        if not await self._denies():
            acls = [{"acltype": name, "allow": allow} for name, allow in _DEFAULTS.items()]
            await self._do([{"command": "setDefaultACLAccess", "acls": acls}])
            count += 1
        found = await self._found()
        count += sum(1 for _ in _differences(found, wanted))
        await self._apply(found, wanted, progress)
        return count

    # What there should be.

    async def _desired(self) -> _Rights:
        rights = _Rights({}, {})
        groups = await self._fleet.groups()
        prefixes = tuple(sorted({group.prefix for group in groups.values()}))
        for group in groups.values():
            rights.roles[group_role(group.name)] = of_group(group, prefixes)
            async for record in self._fleet.members(group.name):
                grant = group.grant(record, prefixes)
                if grant is None:
                    continue
                role, client = self._wanted(grant, group)
                rights.roles[member_role(group.name, record.member)] = role
                rights.clients[Principal(group.name, record.member).username] = client
                if len(rights.clients) > MAX_MEMBERS:
                    raise _too_many(len(rights.clients))
        return rights

    def _wanted(self, grant: Grant, group: GuardedGroup) -> tuple[Role, _Client]:
        roles = {member_role(grant.topics.group, grant.member)}
        if grant.rank is Rank.MEMBER:
            roles.add(group_role(grant.topics.group))
        return of_member(grant, group), _Client(self._mark, frozenset(roles), disabled=False)

    # What there is.

    def _compared(self) -> _Rights:
        if self._there is None:
            message = "the broker's clients have not been compared with the store yet"
            raise TransportError(message)
        return self._there

    async def _denies(self) -> bool:
        (answer,) = await self._do([{"command": "getDefaultACLAccess"}])
        acls = _dicts(_data_of(answer).get("acls"))
        return {acl.get("acltype"): acl.get("allow") for acl in acls} == _DEFAULTS

    async def _found(self) -> _Rights:
        """Return what is ours at the broker, and remember it."""
        rights = _Rights({}, {})
        async for role in self._all("listRoles", "roles"):
            if names_of(name := str(role.get("rolename"))) is not None:
                rights.roles[name] = frozenset(_rule(acl) for acl in _dicts(role.get("acls")))
        async for client in self._all("listClients", "clients"):
            if (mark := str(client.get("textname", ""))).startswith("brokerkm "):
                roles = frozenset(str(role.get("rolename")) for role in _dicts(client.get("roles")))
                rights.clients[str(client.get("username"))] = _Client(mark, roles, bool(client.get("disabled")))
        self._there = rights
        return rights

    async def _all(self, command: str, what: str) -> AsyncIterator[dict[str, Any]]:
        for offset in range(0, 1 << 20, _PAGE):
            (answer,) = await self._do([{"command": command, "verbose": True, "count": _PAGE, "offset": offset}])
            page = _dicts(_data_of(answer).get(what))
            for one in page:
                yield one
            if len(page) < _PAGE:
                return

    # Changes.

    async def _apply(self, found: _Rights, wanted: _Rights, progress: Callable[[int, int], None] | None = None) -> None:
        """Send what makes one the other; if that fails, what the broker has is not known any more."""
        there = self._compared()
        commands = list(self._commands(found, wanted))
        try:
            for start in range(0, len(commands), _AT_ONCE):
                if progress is not None:
                    progress(start, len(commands))
                await self._do(commands[start : start + _AT_ONCE])
        except BaseException:
            self._there = None
            raise
        _replace(found.roles, wanted.roles, there.roles)
        _replace(found.clients, wanted.clients, there.clients)

    def _commands(self, found: _Rights, wanted: _Rights) -> Iterator[Command]:
        """Yield commands: first whoever has to go, then rules, then the clients that need them."""
        for username in found.clients.keys() - wanted.clients.keys():
            yield {"command": "deleteClient", "username": username}
        for name, role in wanted.roles.items():
            if found.roles.get(name) != role:
                verb = "modifyRole" if name in found.roles else "createRole"
                yield {"command": verb, "rolename": name, "acls": [rule._asdict() for rule in sorted(role)]}
        for username, client in wanted.clients.items():
            if (known := found.clients.get(username)) != client:
                yield from self._client_commands(username, client, known)
        for name in (
            found.roles.keys() - wanted.roles.keys()
        ):  # last: 2.0.11 reads freed memory if a client still has it
            yield {"command": "deleteRole", "rolename": name}

    def _client_commands(self, username: str, client: _Client, known: _Client | None) -> Iterator[Command]:
        principal = Principal.parse(username)
        if principal is None:
            raise UsageError(username)  # it is made by `Principal.username`
        roles = [
            {"rolename": name, "priority": _GROUP_PRIORITY if name == group_role(principal.group) else _ROLE_PRIORITY}
            for name in sorted(client.roles)
        ]
        body = {"username": username, "textname": client.mark, "roles": roles}
        if known is None:
            yield {"command": "createClient", "password": self._passwords.of(principal), **body}
            return
        if known.mark != client.mark:
            body["password"] = self._passwords.of(principal)
        yield {"command": "modifyClient", **body}
        if known.disabled:
            yield {"command": "enableClient", "username": username}

    async def _do(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """Have commands done in one message; return the answers. Whatever has to go may be gone already."""
        async with self._turn:
            batch = f"brokerkm-{next(self._batches)}"
            question = {"commands": [{**command, "correlationData": batch} for command in commands]}
            answers = _read(await self._line.ask(batch, json.dumps(question).encode()))
        for answer in answers:
            problem = answer.get("error")
            if problem and not (str(answer.get("command")).startswith("delete") and "not found" in str(problem)):
                message = f"Mosquitto's dynamic security did not do {answer.get('command')}: {str(problem)[:200]}"
                raise TransportError(message)
        if len(answers) != len(commands):
            message = f"Mosquitto's dynamic security answered {len(answers)} of {len(commands)} commands"
            raise TransportError(message)
        return answers


def _batch_of(answer: bytes) -> str | None:
    """Return which batch an answer is for, None if it cannot be told."""
    try:
        responses = _read(answer)
    except TransportError:
        return None
    return str(responses[0].get("correlationData")) if responses else None


def _read(answer: bytes) -> list[dict[str, Any]]:
    try:
        responses = json.loads(answer)["responses"]
    except (ValueError, KeyError, TypeError, RecursionError):
        responses = None
    if not isinstance(responses, list):
        message = "Mosquitto's dynamic security gave an answer that cannot be read"
        raise TransportError(message)
    return _dicts(cast("object", responses))


def _dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects in what should be a list of objects."""
    if not isinstance(value, list):
        return []
    return [cast("dict[str, Any]", one) for one in cast("list[object]", value) if isinstance(one, dict)]


def _data_of(answer: dict[str, Any]) -> dict[str, Any]:
    data: object = answer.get("data")
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _rule(acl: dict[str, Any]) -> Rule:
    priority: object = acl.get("priority")
    number = priority if isinstance(priority, int) else -1
    return Rule(str(acl.get("acltype")), str(acl.get("topic")), number, allow=bool(acl.get("allow")))


def _only(known: dict[str, T], name: str) -> dict[str, T]:
    return {name: known[name]} if name in known else {}


def _replace(before: dict[str, T], after: dict[str, T], known: dict[str, T]) -> None:
    """Take over into what is known what has been sent."""
    for name in before.keys() - after.keys():
        known.pop(name, None)
    known.update(after)


def _owned_by(group: str, rights: _Rights) -> _Rights:
    """Return what a group and its members have of the rights."""
    roles = {name: role for name, role in rights.roles.items() if (names_of(name) or ("",))[0] == group}
    clients = {name: client for name, client in rights.clients.items() if name.partition(":")[0] == group}
    return _Rights(roles, clients)


def _differences(found: _Rights, wanted: _Rights) -> Iterator[tuple[str, str, str]]:
    """Yield group, member and what differs, once for each of them."""
    said: set[tuple[str, str]] = set()
    clients = (
        (name, _split(name), found.clients.get(name), wanted.clients.get(name))
        for name in _names(found.clients, wanted.clients)
    )
    roles = (
        (name, names_of(name), found.roles.get(name), wanted.roles.get(name))
        for name in _names(found.roles, wanted.roles)
    )
    for name, owner, before, after in (*clients, *roles):
        group, member = owner or ("", name)
        if before != after and (group, member) not in said:
            said.add((group, member))
            yield group, member, _describe(known=before is not None, wanted=after is not None)


def _names(before: dict[str, T], after: dict[str, T]) -> list[str]:
    return sorted(before.keys() | after.keys())


def _split(username: str) -> tuple[str, str]:
    group, _, member = username.partition(":")
    return group, member


def _describe(*, known: bool, wanted: bool) -> str:
    if not known:
        return "is missing at the broker"
    return "has other rights at the broker" if wanted else "has rights at the broker, but not by the store"


def _too_many(count: int) -> TransportError:
    message = (
        f"{count} members are more than Mosquitto's dynamic security can carry ({MAX_MEMBERS}): 2.0 writes its whole "
        "file anew at each change. Use brokerkm's plugin: brokerkm broker install mosquitto --level plugin"
    )
    return TransportError(message)
