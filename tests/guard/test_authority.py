"""Who may connect, as what: every status of a member with every kind of login."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from brokerkm.core import login
from brokerkm.core.crypto import load_signing_key
from brokerkm.core.login import Principal
from brokerkm.errors import UsageError
from brokerkm.guard.authority import Authority, DeniedError
from brokerkm.guard.fleet import GuardedGroup
from brokerkm.guard.rules import Rank
from brokerkm.store.records import MemberRecord, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PUMP = Principal("plant", "pump")
KEY, OTHER = load_signing_key(b"k" * 32), load_signing_key(b"o" * 32)
IDENTITY = KEY.public_key().public_bytes_raw()


def password(principal: Principal = PUMP) -> str:
    """Return the password of the device with `KEY`."""
    return login.password(principal, IDENTITY, KEY.sign)


@dataclass
class Known:
    """A fleet in memory."""

    records: dict[tuple[str, str], MemberRecord] = field(default_factory=dict)
    names: tuple[str, ...] = ("plant",)

    def put(self, status: Status, identity: bytes = IDENTITY, slot: int | None = None) -> None:
        """Let the pump have a status."""
        self.records["plant", "pump"] = MemberRecord("pump", status, identity, slot)

    async def groups(self) -> dict[str, GuardedGroup]:
        """Return the groups."""
        return {name: GuardedGroup(name, "bkm/1", 4) for name in self.names}

    async def member(self, group: str, member: str) -> MemberRecord | None:
        """Return a record."""
        return self.records.get((group, member))

    async def members(self, group: str) -> AsyncIterator[MemberRecord]:
        """Yield records."""
        for (name, _), record in sorted(self.records.items()):
            if name == group:
                yield record


async def test_a_member() -> None:
    """One that is seated has its rights, by the long user name and, in the only group, by the short one."""
    known = Known()
    known.put(Status.SEATED, slot=5)
    for username in ("plant:pump", "pump"):
        authority = Authority(known)
        for grant in (await authority.login(username, password()), await authority.grant(username)):
            assert (Rank.MEMBER, 5, "pump") == (grant.rank, grant.slot, grant.member)


@pytest.mark.parametrize("status", [Status.LISTED, Status.PENDING])
async def test_one_that_waits(status: Status) -> None:
    """One that is listed or waits for an operator may ask, and no more."""
    known = Known()
    known.put(status)
    assert Rank.APPLICANT is (await Authority(known).login("plant:pump", password())).rank


async def test_an_unknown_one() -> None:
    """One of which nothing is known may ask, unless the configuration says otherwise."""
    known = Known()
    assert Rank.APPLICANT is (await Authority(known).login("plant:pump", password())).rank
    with pytest.raises(DeniedError, match="not known"):
        await Authority(known, applicants=False).login("plant:pump", password())
    with pytest.raises(DeniedError, match="never known"):
        await Authority(known, applicants=False).grant("plant:pump")


async def test_a_listed_one_without_applicants() -> None:
    """One that is listed by its key is no stranger."""
    known = Known()
    known.put(Status.LISTED)
    assert Rank.APPLICANT is (await Authority(known, applicants=False).login("plant:pump", password())).rank


async def test_an_evicted_one() -> None:
    """One that is evicted may not even connect."""
    known = Known()
    known.put(Status.EVICTED)
    with pytest.raises(DeniedError, match="evicted"):
        await Authority(known).login("plant:pump", password())
    with pytest.raises(DeniedError, match="evicted"):
        await Authority(known).grant("plant:pump")


@pytest.mark.parametrize("status", list(Status))
async def test_another_key(status: Status) -> None:
    """The name alone is worth nothing, whatever its status."""
    known = Known()
    known.put(status, OTHER.public_key().public_bytes_raw(), 5 if status is Status.SEATED else None)
    with pytest.raises(DeniedError, match="another identity key"):
        await Authority(known).login("plant:pump", password())


async def test_bad_user_names() -> None:
    """A name that is nobody's, or could be several's, is refused."""
    names = ["", ":", "plant:", ":pump", "a:b:c", "plant:pu mp", "other:pump", "plant/pump", "x" * 200, "plant:+", "#"]
    for name in names:
        with pytest.raises(DeniedError):
            await Authority(Known()).login(name, password())
        with pytest.raises(DeniedError):
            await Authority(Known()).grant(name)
    with pytest.raises(DeniedError, match="neither"):
        await Authority(Known(names=("plant", "ship"))).login("pump", password())


async def test_bad_passwords() -> None:
    """A password that is none, cut, changed, of another name or made by another key is refused, and not repeated."""
    good = password()
    data = bytearray(base64.urlsafe_b64decode(good[5:]))
    bad = [
        "",
        "secret",
        good[:-1],
        good + "A",
        good.replace("bkm1:", "bkm2:"),
        "bkm1:" + "=" * 128,
        "bkm1:" + "é" * 128,
    ]
    bad.append(password(Principal("plant", "valve")))
    bad.append(password(Principal("ship", "pump")))
    bad.append(login.password(PUMP, IDENTITY, OTHER.sign))
    for position in range(0, 96, 7):
        changed = bytearray(data)
        changed[position] ^= 1
        bad.append("bkm1:" + base64.urlsafe_b64encode(changed).decode())
    for wrong in bad:
        with pytest.raises(DeniedError) as caught:
            await Authority(Known()).login("plant:pump", wrong)
        assert not wrong or wrong not in str(caught.value)


def test_the_password_is_specified() -> None:
    """Its bytes are as the documentation says: anybody can make one with an Ed25519 key."""
    assert b"brokerkm v1 broker login\x00plant\x00pump" == login.signed(PUMP)
    made = password()
    assert 133 == len(made) == login.PASSWORD_SIZE
    assert base64.urlsafe_b64decode(made.removeprefix("bkm1:")) == IDENTITY + KEY.sign(login.signed(PUMP))
    assert made == password()
    assert IDENTITY == login.identity_of(PUMP, made)
    with pytest.raises(UsageError, match="not made by brokerkm"):
        login.identity_of(PUMP, "nothing")


async def test_the_key_server() -> None:
    """Its name and password are the configuration's, where the broker asks for them."""
    authority = Authority(Known(), ("keyserver", "a password"))
    assert authority.is_keyserver("keyserver", "a password")
    assert not authority.is_keyserver("keyserver", "another")
    assert not authority.is_keyserver("pump", "a password")
    assert not Authority(Known()).is_keyserver("keyserver", "")


def test_usernames() -> None:
    """What a principal is called can be read again."""
    assert PUMP == Principal.parse(PUMP.username)
    assert Principal.parse("pump") is None
    assert PUMP == Principal.parse("pump", "plant")
