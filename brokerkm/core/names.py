"""Identifiers of groups and members, and the topics that carry the protocol's messages.

Every topic is flat below its group (`PREFIX/GROUP/…`), at most seven slashes deep in all with the default
prefix, so that the strictest brokers accept it. The specification is `schemas/README.md`, section "Topics".
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from brokerkm.errors import Reason, RefusedError, UsageError

DEFAULT_PREFIX: Final = "bkm/1"
MAX_LEVEL: Final = 24  # a tree of degree 2 with 2^24 leaves
MAX_SLOTS: Final = 1 << 24

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64}){0,2}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


def is_identifier(text: str) -> bool:
    """Return whether `text` may name a group or a member: 1 to 64 of ``A-Z a-z 0-9 . _ -``."""
    return _IDENTIFIER.fullmatch(text) is not None


def check_identifier(text: str, what: str) -> str:
    """Return `text` if it may name a group or a member; raises `UsageError` otherwise."""
    if not is_identifier(text):
        message = f"{what} {text[:80]!r} is not 1 to 64 characters of A-Z a-z 0-9 . _ -"
        raise UsageError(message)
    return text


@dataclass(frozen=True, slots=True)
class NodeTopic:
    """Where Rekey messages of one cover node go; level 0 is the bucket of level-1 node `index`."""

    level: int
    index: int


class BeaconTopic(NamedTuple):
    """Where the group's Beacon goes."""


class HandoverTopic(NamedTuple):
    """Where the group's hand-overs from one server key to the next go."""


class MemberTopic(NamedTuple):
    """Where Welcome, Goodbye and Refusal for one member go."""

    member: str


class RequestTopic(NamedTuple):
    """Where one member's Join, Sync and Leave go."""

    member: str


TopicName = NodeTopic | BeaconTopic | HandoverTopic | MemberTopic | RequestTopic


class Topics:
    """The topic names of one group.

    Args:
        group: group id.
        prefix: what all of brokerkm's topics at this broker begin with, one to three levels.
    """

    __slots__ = ("group", "prefix", "root")

    def __init__(self, group: str, prefix: str = DEFAULT_PREFIX) -> None:
        if not _PREFIX.fullmatch(prefix):
            message = f"prefix {prefix[:200]!r} is not one to three topic levels of A-Z a-z 0-9 . _ -"
            raise UsageError(message)
        self.group: Final = check_identifier(group, "group")
        self.prefix: Final = prefix
        self.root: Final = f"{prefix}/{group}"

    def node(self, level: int, index: int) -> str:
        """Return the topic of node `(level, index)`, or of a bucket if `level` is 0."""
        return f"{self.root}/n/{level}/{index}"

    @property
    def beacon(self) -> str:
        """The topic of the group's Beacon."""
        return f"{self.root}/b"

    @property
    def handover(self) -> str:
        """The topic of the group's hand-overs."""
        return f"{self.root}/k"

    def member(self, member: str) -> str:
        """Return the topic of what is for `member` alone."""
        return f"{self.root}/m/{member}"

    def request(self, member: str) -> str:
        """Return the topic of the requests of `member`."""
        return f"{self.root}/r/{member}"

    @property
    def requests(self) -> str:
        """The filter that matches the requests of every member."""
        return f"{self.root}/r/+"

    def owns(self, topic: str) -> bool:
        """Return whether `topic` belongs to the protocol rather than to the application."""
        return topic == self.prefix or topic.startswith(self.prefix + "/")

    def parse(self, topic: str) -> TopicName:
        """Return what `topic` names; raises `RefusedError` (wrong-topic) if it is not one of this group."""
        if topic.startswith(self.root + "/"):
            match topic[len(self.root) + 1 :].split("/"):
                case ["n", level, index] if _below(level, MAX_LEVEL + 1) and _below(index, MAX_SLOTS):
                    return NodeTopic(int(level), int(index))
                case ["b"]:
                    return BeaconTopic()
                case ["k"]:
                    return HandoverTopic()
                case ["m", member] if is_identifier(member):
                    return MemberTopic(member)
                case ["r", member] if is_identifier(member):
                    return RequestTopic(member)
                case _:
                    pass
        raise RefusedError(Reason.WRONG_TOPIC, "topic")


def _below(text: str, limit: int) -> bool:
    """Return whether `text` is a number in its shortest form, less than `limit`."""
    return _NUMBER.fullmatch(text) is not None and int(text) < limit
