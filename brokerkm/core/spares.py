"""Root keys that are drawn before they are needed: RFC 2627, section 5.1, "spare keys for the next crypto-periods".

The key server's side: a commit that renews the root and shuts nobody out takes the oldest spare for it; one that does
shut somebody out drops them all, for whoever is to be shut out may hold them. The specification's section "Spares".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from brokerkm.core.crypto import KEY_SIZE
from brokerkm.core.welcome import NodeKey

if TYPE_CHECKING:
    from brokerkm.core.crypto import Random
    from brokerkm.core.renewal import Renewal


EMPTY: Final[tuple[bytes, ...]] = ()


def settle(
    spares: tuple[bytes, ...], renewal: Renewal, epoch: int, *, shuts_out: bool, wanted: int, random: Random
) -> tuple[bytes, ...]:
    """Return the spares that are left after a commit; if one of them is its root's key, `renewal` has it then.

    Args:
        spares: those from before, oldest first.
        shuts_out: somebody is to be cut off by the commit, or keys are feared to have leaked.
        wanted: how many there must be afterwards, at least.
        random: source of keys.
    """
    root, left = renewal.height, EMPTY if shuts_out else spares
    if left and 0 in renewal.fresh[root]:
        renewal.nodes[root][0] = NodeKey(left[0], epoch, 0)
        left = left[1:]
    missing = max(wanted - len(left), 0)
    drawn = random(KEY_SIZE * missing) if missing else b""
    return left + tuple(drawn[at : at + KEY_SIZE] for at in range(0, len(drawn), KEY_SIZE))
