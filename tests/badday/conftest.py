"""Devices for a fleet that has a bad day."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from service.fleet import Device

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from brokerkm.descriptor import Descriptor


@pytest.fixture
async def device() -> AsyncGenerator[Callable[..., Awaitable[Device]]]:
    """Return a function that opens devices; they are closed in the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(descriptor: Descriptor, name: str = "pump") -> Device:
            found = await Device.open(descriptor, name)
            stack.push_async_callback(found.close)
            return found

        yield opened
