"""What the key server tells one member: checked under the server's key, then taken.

Cheap checks come first, the signature before anything is believed. What is refused has changed nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.events import (
    Event,
    Evicted,
    Joined,
    PolicyChanged,
    Rekeyed,
    RequestRefused,
    ServerKeyChanged,
    SubgroupReceived,
    Synced,
)
from brokerkm.core.handover import Handover
from brokerkm.core.messages import Kind
from brokerkm.core.names import BeaconTopic, HandoverTopic, MemberTopic, NodeTopic, Topics
from brokerkm.core.notice import EVERYBODY, Goodbye, GoodbyeReason, Refusal, RefusalReason
from brokerkm.core.path import KeyPath
from brokerkm.core.rekey import Beacon, Rekey
from brokerkm.core.state import State, Step
from brokerkm.core.subgroup import Subgroup
from brokerkm.core.welcome import NodeKey, Welcome
from brokerkm.core.wire import message_type
from brokerkm.errors import Reason, RefusedError

if TYPE_CHECKING:
    from brokerkm.core.acknowledgement import Acknowledgement
    from brokerkm.core.catchup import CatchUp
    from brokerkm.core.memory import Memory
    from brokerkm.core.names import TopicName
    from brokerkm.core.policy import Policy
    from brokerkm.core.requester import Requester
    from brokerkm.core.silence import Silence
    from brokerkm.core.traffic import Traffic
    from brokerkm.core.trust import Trust


class Reception:
    """Takes in the server's messages to one member.

    Args:
        memory: what the member remembers; the other parts have the same.
        trust: whose signatures are believed.
        requester: knows which answers are awaited.
        traffic: gets each new root, policy and clock.
        catch_up: gets each Rekey and Beacon.
        silence: told when the server shows life.
        acknowledgement: told when there may be an epoch to confirm.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        trust: Trust,
        requester: Requester,
        traffic: Traffic,
        catch_up: CatchUp,
        silence: Silence,
        acknowledgement: Acknowledgement,
    ) -> None:
        profile = memory.profile
        self._memory: Final = memory
        self._group: Final = profile.group
        self._member: Final = profile.member
        self._topics: Final = Topics(profile.group, profile.prefix)
        self._trust: Final = trust
        self._requester: Final = requester
        self._traffic: Final = traffic
        self._catch_up: Final = catch_up
        self._silence: Final = silence
        self._acknowledgement: Final = acknowledgement
        self.doubts = False  # something is not signed by the key that is believed: another may have followed it

    def receive(self, topic: TopicName, payload: bytes, now: float) -> list[Event]:
        """Take in one message from `topic`; an empty one is nothing.

        Raises:
            RefusedError: as `Member.receive`.
        """
        try:
            return self._receive(topic, payload, now)
        except RefusedError as error:
            self.doubts |= (error.reason, error.field) == (Reason.BAD_SIGNATURE, "signature")
            raise

    def _receive(self, topic: TopicName, payload: bytes, now: float) -> list[Event]:
        own = self._member
        events: list[Event] = []
        match topic, message_type(payload) if payload else None:
            case _, None:
                pass
            case NodeTopic(level, index), Kind.REKEY:
                events = self._receive_rekey(level, index, payload, now)
            case NodeTopic(level, index), Kind.SUBGROUP:
                events = self._receive_subgroup(level, index, payload)
            case BeaconTopic(), Kind.BEACON:
                events = self._receive_beacon(payload, now)
            case BeaconTopic(), Kind.GOODBYE:
                events = self._receive_goodbye(payload, EVERYBODY)
            case HandoverTopic(), Kind.HANDOVER:
                events = self._receive_handover(payload)
            case MemberTopic(member), Kind.WELCOME if member == own:
                events = self._receive_welcome(payload, now)
            case MemberTopic(member), Kind.GOODBYE if member == own:
                events = self._receive_goodbye(payload, own)
            case MemberTopic(member), Kind.REFUSAL if member == own:
                events = self._receive_refusal(payload, now)
            case _:
                wrong = (Reason.WRONG_TOPIC, "topic") if _is_anothers(topic, own) else (Reason.WRONG_MESSAGE, "type")
                raise RefusedError(*wrong)
        return events

    def _receive_rekey(self, level: int, index: int, payload: bytes, now: float) -> list[Event]:
        path = self._memory.path
        if path is None or not path.owns(level, index):
            raise RefusedError(Reason.WRONG_TOPIC, "topic")
        rekey = Rekey.decode(payload, level)
        if path.is_old(level, rekey.epoch):
            return []
        rekey.verify(self._trust.key, self._group, level, index)
        root = path.root
        self._catch_up.take(rekey, level, index, path)
        return self._settle(path, root, now)

    def _adopt(self, policy: Policy, at: tuple[int, int], now: float) -> list[Event]:
        """Follow the server's word on the policy if it is the newest, with some grace for those who do not know it."""
        memory = self._memory
        if at < memory.policy_at:
            return []
        before, memory.policy, memory.policy_at = memory.policy, policy, at
        if policy == before:
            return []
        until = now + policy.grace
        if policy.algorithm is not before.algorithm:
            memory.algorithm_until = until
        if policy.source_authentication is not before.source_authentication:
            memory.source_until = until
        self._memory.version += 1
        return [PolicyChanged(policy), *self._traffic.adopt(now)]

    def _receive_beacon(self, payload: bytes, now: float) -> list[Event]:
        memory = self._memory
        beacon = Beacon.decode(payload)
        at, last = (beacon.epoch, beacon.time), (memory.beacon_epoch, memory.beacon_time)
        if memory.path is None or at < last:
            return []
        beacon.verify(self._trust.key, self._group)
        memory.beacon_epoch, memory.beacon_time = at
        self._catch_up.hear(beacon)
        events: list[Event] = []
        if beacon.epoch > last[0]:  # the time alone is not worth a write to a device's flash every half minute
            self._memory.version += 1
        ahead = beacon.time - int(now * 1000)
        if ahead > memory.clock_offset:  # the Welcome was an old one when it came: the server's clock is beyond that
            memory.clock_offset = self._traffic.opener.clock_offset = ahead
        # A Beacon that was seen before, or that the broker kept back for long by the server's clock, shows no life.
        if at > last and now * 1000 + memory.clock_offset - beacon.time <= memory.policy.max_silence * 1000:
            events += self._silence.hear(now)
        events += self._adopt(beacon.policy, at, now)
        return events + self._settle(memory.path, memory.path.root, now)

    def _receive_handover(self, payload: bytes) -> list[Event]:
        if not self._trust.follow(Handover.decode(payload)):
            return []
        self.doubts = False
        self._memory.version += 1
        return [ServerKeyChanged(self._memory.server_key)]

    def _settle(self, path: KeyPath, before: NodeKey, now: float) -> list[Event]:
        """After something has come: follow the root, note what is still missing, be active again if nothing is.

        Args:
            path: the member's.
            before: the root's key before it came.
            now: seconds since 1970.
        """
        events: list[Event] = []
        self._catch_up.follow(path)
        if path.root != before:
            self._memory.version += 1
            if path.root.birth != before.birth:
                events.append(Rekeyed(path.root.birth))
                self._traffic.reserve.follow(path.root)
            events += self._traffic.use(path.root, now)
        events += self._catch_up.settle(path, now)
        self._acknowledgement.expect(now)
        return events

    def _receive_welcome(self, payload: bytes, now: float) -> list[Event]:
        memory, names = self._memory, (self._group, self._member)
        welcome = Welcome.decode(payload)
        seed = self._requester.seed_for(welcome.nonce)
        welcome.verify(self._trust.key, *names)
        secrets = welcome.open(memory.profile.suite, seed, *names)
        leaf_birth, root_birth = (memory.path.leaf.birth, memory.path.root.birth) if memory.path else (0, 0)
        if secrets.epoch < memory.epoch or secrets.leaf.birth < leaf_birth or secrets.time <= memory.welcome_time:
            return []  # overtaken by a Rekey, or replayed
        joined = memory.state is State.JOINING
        self._memory.move(Step.WELCOMED)
        sent = self._requester.welcomed(welcome.nonce, now)
        memory.path = KeyPath(secrets.slot, secrets.degree, secrets.leaf, list(secrets.path))
        memory.epoch, memory.certificate = secrets.epoch, secrets.certificate or memory.certificate
        if secrets.spares:
            self._traffic.reserve.replace(secrets.spares)
        elif memory.path.root.birth != root_birth:
            self._traffic.reserve.follow(memory.path.root)
        # A broker that kept it back for long must not set the clock back with it: old Beacons would look new.
        heard = min(now, sent + secrets.policy.max_silence)
        memory.welcome_time, memory.clock_offset = secrets.time, secrets.time - int(heard * 1000)
        self._silence.hear(heard)  # that it came says so
        nodes = memory.path.nodes
        self._catch_up.keep(nodes)
        memory.subgroup_times = {node: time for node, time in memory.subgroup_times.items() if node in nodes}
        events: list[Event] = [Joined(secrets.epoch) if joined else Synced(secrets.epoch)]
        changes = self._adopt(secrets.policy, (secrets.epoch, secrets.time), now)
        if joined:  # nothing that was sent under another policy is for it
            changes, memory.algorithm_until, memory.source_until = [], None, None
        events += [*changes, *self._traffic.adopt(now), *self._traffic.use(memory.path.root, now)]
        self._catch_up.retry(memory.path)
        return events + self._settle(memory.path, secrets.path[-1], now)

    def _receive_goodbye(self, payload: bytes, member: str) -> list[Event]:
        goodbye = Goodbye.decode(payload)
        if self._memory.path is None or goodbye.epoch <= self._memory.path.leaf.birth:
            return []  # of an earlier membership
        goodbye.verify(self._trust.key, self._group, member)
        return self._expel(goodbye.reason)

    def _receive_refusal(self, payload: bytes, now: float) -> list[Event]:
        refusal = Refusal.decode(payload)
        refusal.verify(self._trust.key, self._group, self._member)
        memory = self._memory
        sent = self._requester.refused(refusal.nonce, refusal.reason)
        self._memory.version += 1
        prompt = sent is not None and now - sent <= memory.policy.max_silence  # a broker did not keep it for later
        if refusal.reason is RefusalReason.WRONG_TIME and prompt:
            memory.clock_offset = self._traffic.opener.clock_offset = refusal.time - int(now * 1000)
            memory.last_request = min(memory.last_request, refusal.time)  # it may have been far ahead
        if refusal.reason is RefusalReason.NOT_A_MEMBER and memory.path is not None:
            return self._expel(GoodbyeReason.EVICTED)
        return [RequestRefused(refusal.reason, refusal.time / 1000)]

    def _expel(self, reason: GoodbyeReason) -> list[Event]:
        self._memory.move(Step.EXPELLED)
        self._memory.path = None
        self._memory.certificate = None
        self._requester.forget()
        self._traffic.forget()
        self._catch_up.forget()
        self._acknowledgement.forget()
        return [Evicted(reason)]

    def _receive_subgroup(self, level: int, index: int, payload: bytes) -> list[Event]:
        path, context = self._memory.path, (self._group, level, index)
        if path is None or not path.owns(level, index):
            raise RefusedError(Reason.WRONG_TOPIC, "topic")
        message = Subgroup.decode(payload, level)
        if message.slot is not None and message.slot != path.slot:
            return []  # for another leaf of the same bucket
        times = self._memory.subgroup_times
        if message.time <= times.get((level, index), 0):
            raise RefusedError(Reason.REPLAY, "time")
        message.verify(self._trust.key, context)
        plaintext = message.open(path.key_at(level, message.birth, message.step), context)
        times[level, index] = message.time
        self._memory.version += 1
        return [SubgroupReceived(self._topics.node(level, index), plaintext)]


def _is_anothers(topic: TopicName, member: str) -> bool:
    """Return whether a topic is that of another member."""
    return isinstance(topic, MemberTopic) and topic.member != member
