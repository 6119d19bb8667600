"""The model's four assertions hold for the real code, whatever members, server and broker do.

Real server, real members, real bytes. The broker loses, repeats and reorders messages, of the same topic too, and
forgets what it should retain; members and the server are restarted, members are evicted, come back, are cut off and
catch up. After every step `Fleet.check` holds, after every commit the outsiders are asked for the new key, and at the
end for the key of every epoch.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brokerkm.core.crypto import Algorithm
from brokerkm.core.state import State
from brokerkm.errors import StaleError
from proof.fleet import Fleet
from proof.profiles import DEEP

if TYPE_CHECKING:
    from proof.device import Device
    from proof.keyserver import Backup

PICK: Final = st.integers(0, 63)
MANY: Final = st.integers(0, 2**16)


class GroupMachine(RuleBasedStateMachine):
    """Whatever can happen to a group."""

    fleet: Fleet
    backup: Backup | None = None

    @initialize(seed=MANY, degree=st.sampled_from([2, 3, 4, 5]), first=st.integers(1, 12))
    def begin(self, seed: int, degree: int, first: int) -> None:
        """Found a group with some members."""
        self.fleet = Fleet(seed, degree)
        self.join(first)
        self.commit(0, 1)

    def pick(self, number: int) -> Device:
        """Return one of all devices that ever were."""
        devices = list(self.fleet.devices.values())
        return devices[number % len(devices)]

    @rule(count=st.integers(1, 6))
    def join(self, count: int) -> None:
        """Let new devices ask for a place."""
        for _ in range(count):
            device = self.fleet.add()
            self.fleet.ask(device, device.join(self.fleet.now))

    @rule(number=PICK)
    def ask_again(self, number: int) -> None:
        """Let a device ask for a place: for a new leaf key if it has one, to come back if it is out."""
        device = self.pick(number)
        if not self.fleet.is_leaving(device):
            self.fleet.ask(device, device.join(self.fleet.now))

    @rule(number=PICK)
    def come_back(self, number: int) -> None:
        """Let a device that is out ask for a place."""
        out = [device for device in self.fleet.devices.values() if not self.fleet.is_seated(device)]
        if out and not self.fleet.is_leaving(device := out[number % len(out)]):
            device.online = True
            self.fleet.ask(device, device.join(self.fleet.now))

    @rule(number=PICK, spares=st.integers(1, 4), online=st.booleans(), known=st.booleans())
    def carry(self, number: int, spares: int, online: bool, known: bool) -> None:  # noqa: FBT001 - drawn arguments
        """Seat a device by files, with spare keys: a new one, or one that there was."""
        device = self.pick(number) if known else self.fleet.add()
        if not self.fleet.is_leaving(device):
            self.fleet.carry(device, spares, online=online)
            assert not self.fleet.is_broken(self.fleet.server.group.epoch)

    @rule()
    def rotate_root(self) -> None:
        """Renew the group's key alone: by a spare, if there is one."""
        self.fleet.server.group.rotate()

    @rule(numbers=st.lists(PICK, min_size=1, max_size=6), ghost=st.booleans())
    def evict(self, numbers: list[int], ghost: bool) -> None:  # noqa: FBT001 - a drawn argument
        """Cut devices off; a ghost goes on listening and is never told."""
        for number in numbers:
            device = self.pick(number)
            if device.name in self.fleet.server.group.directory:
                self.fleet.server.group.evict(device.name)
                device.ghost = ghost

    @rule(number=PICK)
    def leave(self, number: int) -> None:
        """Let a device leave by itself."""
        device = self.pick(number)
        if device.slot_is_known:
            self.fleet.ask(device, device.leave(self.fleet.now))

    @rule(level=st.integers(1, 6), index=st.integers(0, 8), deep=st.booleans())
    def rotate(self, level: int, index: int, deep: bool) -> None:  # noqa: FBT001 - a drawn argument
        """Renew a node, or all of a subtree."""
        tree = self.fleet.server.group.tree
        level = min(level, tree.height)
        self.fleet.server.group.rotate(level, index % tree.degree ** (tree.height - level), deep=deep)

    @rule(lossy=MANY, retain=st.sampled_from([1, 1, 1, 1, 1, 1, 0.8]))
    def commit(self, lossy: int, retain: float) -> None:
        """Make an epoch; devices by the bits of `lossy` get some of its messages only."""
        names = {name for at, name in enumerate(self.fleet.devices) if lossy >> at % 16 & 1}
        self.fleet.commit(lossy=names, retain=retain)
        assert not self.fleet.is_broken(self.fleet.server.group.epoch)

    @rule(turns=st.integers(1, 5), seed=MANY, loss=st.sampled_from([0, 0, 0.2, 0.5]))
    def live(self, turns: int, seed: int, loss: float) -> None:
        """Let some epochs pass."""
        self.fleet.live(turns, seed, loss)
        assert not self.fleet.is_broken(self.fleet.server.group.epoch)

    @rule(number=PICK)
    def disconnect(self, number: int) -> None:
        """Let a device lose its connection."""
        self.pick(number).online = False

    @rule(number=PICK)
    def recover(self, number: int) -> None:
        """Let a device come back and catch up."""
        self.fleet.recover(self.pick(number))

    @rule(number=PICK)
    @precondition(lambda self: not self.fleet.forgetful)
    def rebuild(self, number: int) -> None:
        """Find the group's key with nothing but a device's last Welcome and what is retained."""
        device = self.pick(number)
        if self.fleet.is_seated(device) and device.first_state:
            self.fleet.check_recoverable(device)

    @rule(number=PICK, crashed=st.booleans())
    def restart_device(self, number: int, crashed: bool) -> None:  # noqa: FBT001 - a drawn argument
        """Start a device anew from its disk."""
        self.pick(number).restart(self.fleet.now, crashed=crashed)

    @rule()
    def restart_server(self) -> None:
        """Start the server anew from its store."""
        self.fleet.server.restart()

    @rule()
    def hand_over(self) -> None:
        """Give the server another signing key; a backup of before is worth nothing then."""
        self.fleet.hand_over()
        self.backup = None

    @rule(signed=st.booleans(), algorithm=st.sampled_from(Algorithm), acknowledge=st.sampled_from([0, 5]))
    def set_policy(self, signed: bool, algorithm: Algorithm, acknowledge: int) -> None:  # noqa: FBT001 - drawn
        """Ask something else of the members."""
        policy = replace(
            self.fleet.server.group.policy,
            source_authentication=signed,
            algorithm=algorithm,
            acknowledge=acknowledge,
        )
        self.fleet.set_policy(policy)

    @rule()
    def certify(self) -> None:
        """Let all that lack a certificate ask for one."""
        for device in self.fleet.devices.values():
            if device.current and device.online and device.member.certificate_expiry == 0:
                self.fleet.ask(device, device.sync(self.fleet.now))

    @rule(number=PICK)
    def acknowledge(self, number: int) -> None:
        """Let a device confirm its epoch."""
        device = self.pick(number)
        if device.slot_is_known:
            self.fleet.ask(device, device.ack(self.fleet.now))

    @rule(number=PICK)
    def refresh_leaf(self, number: int) -> None:
        """Give a member a new leaf key unasked; its last Join is answered once more."""
        device, server = self.pick(number), self.fleet.server
        if self.fleet.is_seated(device) and device.name not in server.group._pending:
            server.group.refresh(server.on_file[device.name])

    @rule()
    def back_up(self) -> None:
        """Make a backup."""
        self.backup = self.fleet.server.backup()

    @rule(unnamed=st.booleans())
    @precondition(lambda self: self.backup is not None)
    def restore(self, unnamed: bool) -> None:  # noqa: FBT001 - a drawn argument
        """Restore the backup; the operator may forget to name who was evicted since."""
        assert self.backup is not None
        if self.backup.epoch < self.fleet.server.group.epoch:
            self.fleet.restore(self.backup, set(self.backup.seats) if unnamed else set())
            assert not self.fleet.is_broken(self.fleet.server.group.epoch)
        self.backup = None

    @rule(number=PICK, at=st.lists(MANY, min_size=1, max_size=8), other=st.booleans())
    def replay(self, number: int, at: list[int], other: bool) -> None:  # noqa: FBT001 - a drawn argument
        """Send a device what was published before, on the same or on another topic."""
        device, log = self.pick(number), self.fleet.log
        for place in at:
            topic, payload = log[place % len(log)]
            self.fleet.replay(device, log[(place * 31 + 7) % len(log)][0] if other else topic, payload)

    @rule(number=PICK, at=MANY, bit=MANY)
    def tamper(self, number: int, at: int, bit: int) -> None:
        """Send a device what was published with one bit changed."""
        topic, payload = self.fleet.log[at % len(self.fleet.log)]
        place = bit % (8 * len(payload))
        changed = bytearray(payload)
        changed[place // 8] ^= 1 << place % 8
        device = self.pick(number)
        before = device.member.dump()
        events = device.receive(topic, bytes(changed), self.fleet.now)
        if topic == self.fleet.server.topics.handover and events:  # a link that this device had behind it
            assert device.member.server_keys[-1] in self.fleet.server.keys
            return
        assert not events
        assert before == device.member.dump()

    @rule(number=PICK)
    def talk(self, number: int) -> None:
        """Let a device publish application data."""
        device = self.pick(number)
        if device.current and device.member.state is State.ACTIVE:
            with contextlib.suppress(StaleError):  # its certificate is overdue
                self.fleet.talk(device)

    @rule(number=PICK)
    def read_old(self, number: int) -> None:
        """Let a device try to read what was recorded while it was no member."""
        self.fleet.read_old(self.pick(number))

    @rule()
    def beat(self) -> None:
        """Publish a Beacon."""
        self.fleet.beat()

    @rule(seconds=st.sampled_from([1, 6, 40, 400]))
    def wait(self, seconds: int) -> None:
        """Let nothing happen for a while."""
        self.fleet.pause(seconds)

    @invariant()
    def check(self) -> None:
        """Assert that who must have the group's key has it, and nobody else does."""
        if hasattr(self, "fleet"):
            self.fleet.check()

    def teardown(self) -> None:
        """Assert that all that was ever known outside an epoch, before, then and after, does not give its key."""
        if hasattr(self, "fleet"):
            for epoch in self.fleet.roots:
                assert not self.fleet.is_broken(epoch)


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(max_examples=1_000_000 if DEEP else 60, stateful_step_count=80 if DEEP else 50)
