"""What a group asks of its members; part of every Welcome and Beacon, so that every change is signed to all."""

from dataclasses import dataclass
from typing import Self

from brokerkm.core.crypto import Algorithm
from brokerkm.core.wire import array, uint
from brokerkm.errors import Reason, RefusedError

_MAX_SECONDS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that a member keeps; all times in seconds.

    Args:
        grace: how long Data under an older TEK, or as an earlier policy wanted it, is still accepted. 30 s: a slow
            link's worst delay.
        hold: how long Data of a newer TEK waits for its Rekey, and a gap for its end. 5 s: topics are not ordered
            among each other, but a broker delivers within seconds.
        max_silence: how long no new Beacon may come before the member says so. 300 s: ten beacon intervals.
        stop_when_silent: send nothing while silent, so that a broker which withholds rekeys gains no new traffic.
        source_authentication: every Data carries its sender's signature; others are refused.
        algorithm: how Data is sealed.
        acknowledge: within how many seconds, at random, a member confirms a new epoch by an Ack; 0: never.
    """

    grace: int = 30
    hold: int = 5
    max_silence: int = 300
    stop_when_silent: bool = True
    source_authentication: bool = False
    algorithm: Algorithm = Algorithm.AES_256_GCM
    acknowledge: int = 0

    @property
    def fields(self) -> tuple[int, ...]:
        """What goes on the wire: the attributes in order, each as an integer."""
        flags = (int(self.stop_when_silent), int(self.source_authentication), int(self.algorithm))
        return (self.grace, self.hold, self.max_silence, *flags, self.acknowledge)

    @classmethod
    def from_fields(cls, value: object) -> Self:
        """Return the policy in a decoded array; raises `RefusedError`."""
        grace, hold, max_silence, stop, source, algorithm, acknowledge = array(value, "policy", 7)
        if max_silence == 0:
            raise RefusedError(Reason.OUT_OF_RANGE, "policy.max_silence")
        return cls(
            uint(grace, "policy.grace", _MAX_SECONDS),
            uint(hold, "policy.hold", _MAX_SECONDS),
            uint(max_silence, "policy.max_silence", _MAX_SECONDS),
            bool(uint(stop, "policy.stop_when_silent", 1)),
            bool(uint(source, "policy.source_authentication", 1)),
            Algorithm(uint(algorithm, "policy.algorithm", len(Algorithm), 1)),
            uint(acknowledge, "policy.acknowledge", _MAX_SECONDS),
        )
