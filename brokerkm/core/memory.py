"""What a member remembers between its starts, and its encoding. Holds secrets: the caller keeps it to itself.

The format is brokerkm's own and versioned; it is not part of the wire contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from brokerkm.core.crypto import KEY_SIZE, PUBLIC_KEY_SIZE, Suite
from brokerkm.core.data import SALT_SIZE
from brokerkm.core.messages import MAX_DEGREE, MAX_STEP
from brokerkm.core.names import DEFAULT_PREFIX, MAX_LEVEL, MAX_SLOTS, Topics
from brokerkm.core.opener import WINDOW
from brokerkm.core.path import KeyPath
from brokerkm.core.policy import Policy
from brokerkm.core.state import State, Step, after
from brokerkm.core.welcome import MAX_SPARES, Certificate, NodeKey
from brokerkm.core.wire import NONCE_SIZE, array, binary, check_canonical, identifier, pack, text, uint, unpack_array
from brokerkm.errors import Reason, RefusedError, UsageError

FORMAT: Final = 3
_FORMER: Final = 2  # had no spares
_MAGIC: Final = "brokerkm member"
MAX_SIZE: Final = 64 * 1024 * 1024  # bytes; replay windows of 65,536 senders
MAX_NONCES: Final = 4  # requests that may be under way at once
_MASK_SIZE: Final = WINDOW // 8  # bytes
_OFFSET_BASE: Final = 1 << 62  # makes a clock offset an unsigned integer


TrafficKey: TypeAlias = tuple[int, int, bytes, float | None]  # birth, step, TEK, expiry in seconds since 1970
SavedWindow: TypeAlias = tuple[int, str, bytes, int, int]  # birth (negative: of a spare), sender, salt, top, mask


@dataclass(frozen=True, slots=True)
class Profile:
    """Who a member is and whom it believes.

    Args:
        group, member: ids.
        server_key: the group's Ed25519 public key, 32 bytes, as it was told at first.
        suite: the group's.
        prefix: of the group's topics.
    """

    group: str
    member: str
    server_key: bytes
    suite: Suite = Suite.X25519
    prefix: str = DEFAULT_PREFIX


@dataclass(slots=True)
class Memory:
    """The persistent state of one member; times in ms since 1970 unless they say otherwise."""

    profile: Profile
    identity_seed: bytes = field(repr=False)
    server_key: bytes = b""  # the newest that the server has handed over to; the profile's before that
    former_keys: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])  # and when each ended
    kem_seed: bytes = field(default=b"", repr=False)  # of the Join that was granted
    join_seed: bytes = field(default=b"", repr=False)  # of the Join that is under way, or was granted last
    join_nonces: list[bytes] = field(default_factory=list[bytes])
    sync_nonces: list[bytes] = field(default_factory=list[bytes])
    refused_nonces: list[bytes] = field(default_factory=list[bytes])  # those of both that a Refusal has answered
    state: State = State.NEW
    epoch: int = 0
    path: KeyPath | None = field(default=None, repr=False)
    spares: dict[int, bytes] = field(default_factory=dict[int, bytes], repr=False)  # by number
    policy: Policy = field(default_factory=Policy)
    policy_at: tuple[int, int] = (0, 0)  # epoch and time of the word of the server's that it came with
    algorithm_until: float | None = None  # seconds; while Data sealed by the other algorithm is accepted too
    source_until: float | None = None  # seconds; while signatures are wanted and missed, or no longer wanted
    certificate: Certificate | None = None
    welcome_time: int = 0
    beacon_epoch: int = 0
    beacon_time: int = 0
    last_request: int = 0
    counter: int = 0  # of the last request
    acked: int = 0  # the newest epoch that was confirmed
    clock_offset: int = 0  # what to add to the member's clock to get the server's
    heard: float = 0.0  # seconds since 1970 by the member's clock
    traffic_keys: list[TrafficKey] = field(default_factory=list[TrafficKey], repr=False)
    windows: list[SavedWindow] = field(default_factory=list[SavedWindow])
    subgroup_times: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])  # newest, by topic
    version: int = field(default=0, compare=False)  # grows when there is something to save; is not saved itself

    def __post_init__(self) -> None:
        self.server_key = self.server_key or self.profile.server_key

    def move(self, step: Step) -> None:
        """Go where `step` leads; raises `RefusedError` (wrong-state) if it cannot happen now."""
        self.state = after(self.state, step)
        self.version += 1

    def encode(self) -> bytes:
        """Return the bytes to keep; what `decode` makes of them is equal to this."""
        it = self.profile
        path = None
        if self.path is not None:
            keys = [tuple(key) for key in (self.path.leaf, *self.path.keys)]
            path = (self.path.slot, self.path.degree, keys)
        traffic = [(birth, step, key, _ms(expiry)) for birth, step, key, expiry in self.traffic_keys]
        windows = [window for window in self.windows if window[0] >= 0]
        unsure = [(-1 - origin, *rest) for origin, *rest in self.windows if origin < 0]
        return pack(
            (
                _MAGIC,
                FORMAT,
                (it.group, it.member, it.server_key, it.suite, it.prefix),
                (self.identity_seed, self.kem_seed, self.join_seed),
                (self.join_nonces, self.sync_nonces, self.refused_nonces),
                (self.state, self.epoch, self.welcome_time, self.beacon_epoch, self.beacon_time),
                (self.last_request, self.counter, self.acked),
                (self.clock_offset + _OFFSET_BASE, int(self.heard * 1000)),
                path,
                (self.policy.fields, *self.policy_at, _ms(self.algorithm_until), _ms(self.source_until)),
                self.certificate and self.certificate.fields,
                traffic,
                [_pack_window(window) for window in windows],
                [(*node, time) for node, time in self.subgroup_times.items()],
                (self.server_key, self.former_keys),
                (list(self.spares.items()), [_pack_window(window) for window in unsure]),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Memory:
        """Return what `encode` wrote.

        Raises:
            RefusedError: the bytes are damaged, or of a format that this version does not know.
        """
        fields = unpack_array(data, MAX_SIZE)
        if fields[:1] != [_MAGIC]:
            raise RefusedError(Reason.WRONG_MESSAGE, "state", "not the state of a brokerkm member")
        if fields[1:2] not in ([FORMAT], [_FORMER]):
            raise RefusedError(Reason.WRONG_VERSION, "state.format", f"this version knows format {FORMAT}")
        check_canonical(fields, data)
        if fields[1] == _FORMER:
            fields.append([list[object](), list[object]()])
        _, _, profile, secrets, nonces, progress, asked, clock, path, policy, certificate, traffic, *rest = array(
            fields, "state", 16
        )
        windows, times, trust, reserve = rest
        identity, kem, join = array(secrets, "state.secrets", 3)
        join_nonces, sync_nonces, refused_nonces = map(_nonces, array(nonces, "state.nonces", 3))
        state, epoch, welcome_time, beacon_epoch, beacon_time = array(progress, "state.progress", 5)
        last_request, counter, acked = array(asked, "state.asked", 3)
        offset, heard = array(clock, "state.clock", 2)
        policy, policy_epoch, policy_time, algorithm_until, source_until = array(policy, "state.policy", 5)
        known = _profile(profile)
        server_key, former_keys = array(trust, "state.trust", 2)
        spares, unsure = array(reserve, "state.reserve", 2)
        memory = cls(
            profile=known,
            identity_seed=binary(identity, "state.identity", KEY_SIZE),
            server_key=binary(server_key, "state.server_key", PUBLIC_KEY_SIZE),
            former_keys=[_former_key(item) for item in array(former_keys, "state.former_keys")],
            kem_seed=_seed(kem, known.suite),
            join_seed=_seed(join, known.suite),
            join_nonces=join_nonces,
            sync_nonces=sync_nonces,
            refused_nonces=refused_nonces,
            state=_state(state),
            epoch=uint(epoch, "state.epoch"),
            path=_path(path),
            policy=Policy.from_fields(policy),
            policy_at=(uint(policy_epoch, "state.policy_at"), uint(policy_time, "state.policy_at")),
            algorithm_until=_seconds(algorithm_until, "state.algorithm_until"),
            source_until=_seconds(source_until, "state.source_until"),
            certificate=None if certificate is None else Certificate.from_fields(certificate),
            welcome_time=uint(welcome_time, "state.welcome_time"),
            beacon_epoch=uint(beacon_epoch, "state.beacon_epoch"),
            beacon_time=uint(beacon_time, "state.beacon_time"),
            last_request=uint(last_request, "state.last_request"),
            counter=uint(counter, "state.counter"),
            acked=uint(acked, "state.acked"),
            clock_offset=uint(offset, "state.clock_offset") - _OFFSET_BASE,
            heard=uint(heard, "state.heard") / 1000,
            traffic_keys=[_traffic_key(item) for item in array(traffic, "state.traffic")],
            windows=[
                *(_window(item) for item in array(windows, "state.windows")),
                *((-1 - it[0], *it[1:]) for it in map(_window, array(unsure, "state.windows"))),
            ],
            spares=dict(_spare(item) for item in array(spares, "state.spares")),
            subgroup_times=dict(_subgroup_time(item) for item in array(times, "state.subgroup_times")),
        )
        if (memory.path is None) == (memory.state in {State.ACTIVE, State.STALE}):
            raise RefusedError(Reason.OUT_OF_RANGE, "state.state")
        return memory


def _ms(time: float | None) -> int | None:
    return None if time is None else int(time * 1000)


def _seconds(value: object, name: str) -> float | None:
    return None if value is None else uint(value, name) / 1000


def _former_key(value: object) -> tuple[bytes, int]:
    key, end = array(value, "state.former_keys", 2)
    return binary(key, "state.former_keys", PUBLIC_KEY_SIZE), uint(end, "state.former_keys")


def _profile(value: object) -> Profile:
    group, member, server_key, suite, prefix = array(value, "state.profile", 5)
    profile = Profile(
        identifier(group, "state.group"),
        identifier(member, "state.member"),
        binary(server_key, "state.server_key", PUBLIC_KEY_SIZE),
        Suite(uint(suite, "state.suite", len(Suite), 1)),
        text(prefix, "state.prefix"),
    )
    try:
        Topics(profile.group, profile.prefix)
    except UsageError:
        raise RefusedError(Reason.OUT_OF_RANGE, "state.prefix") from None
    return profile


def _nonces(value: object) -> list[bytes]:
    return [binary(nonce, "state.nonces", NONCE_SIZE) for nonce in array(value, "state.nonces")]


def _state(value: object) -> State:
    name = text(value, "state.state")
    if name not in set(State):
        raise RefusedError(Reason.OUT_OF_RANGE, "state.state")
    return State(name)


def _seed(value: object, suite: Suite) -> bytes:
    return binary(value, "state.seed", suite.seed_size) if value else b""


def _node_key(value: object) -> NodeKey:
    key, birth, step = array(value, "state.keys", 3)
    return NodeKey(
        binary(key, "state.keys", KEY_SIZE), uint(birth, "state.keys", minimum=1), uint(step, "state.keys", MAX_STEP)
    )


def _path(value: object) -> KeyPath | None:
    if value is None:
        return None
    slot, degree, keys = array(value, "state.path", 3)
    nodes = [_node_key(key) for key in array(keys, "state.keys")]
    if not 2 <= len(nodes) <= MAX_LEVEL + 1:  # noqa: PLR2004 - a leaf and a root at least
        raise RefusedError(Reason.WRONG_LENGTH, "state.keys")
    return KeyPath(
        uint(slot, "state.slot", MAX_SLOTS - 1), uint(degree, "state.degree", MAX_DEGREE, 2), nodes[0], nodes[1:]
    )


def _traffic_key(value: object) -> TrafficKey:
    birth, step, key, expiry = array(value, "state.traffic", 4)
    return (
        uint(birth, "state.traffic"),
        uint(step, "state.traffic", MAX_STEP),
        binary(key, "state.traffic", KEY_SIZE),
        _seconds(expiry, "state.traffic"),
    )


def _spare(value: object) -> tuple[int, bytes]:
    number, key = array(value, "state.spares", 2)
    return uint(number, "state.spares", MAX_SPARES - 1), binary(key, "state.spares", KEY_SIZE)


def _pack_window(window: tuple[Any, ...]) -> tuple[object, ...]:
    *source, mask = window
    return (*source, mask.to_bytes(_MASK_SIZE, "big").lstrip(b"\0"))


def _window(value: object) -> SavedWindow:
    birth, sender, salt, top, mask = array(value, "state.windows", 5)
    return (
        uint(birth, "state.windows"),
        identifier(sender, "state.windows"),
        binary(salt, "state.windows", SALT_SIZE),
        uint(top, "state.windows"),
        int.from_bytes(binary(mask, "state.windows", maximum=_MASK_SIZE), "big"),
    )


def _subgroup_time(value: object) -> tuple[tuple[int, int], int]:
    level, index, time = (uint(item, "state.subgroup_times") for item in array(value, "state.subgroup_times", 3))
    return (level, index), time
