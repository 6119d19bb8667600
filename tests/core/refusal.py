"""What a refusal must say: its reason and the field that is wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from brokerkm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from brokerkm.errors import Reason


@contextmanager
def refused(reason: Reason, field: str) -> Iterator[None]:
    """Expect that what is done inside is refused for `reason` in `field`."""
    with pytest.raises(RefusedError) as caught:
        yield
    assert (reason, field) == (caught.value.reason, caught.value.field)
