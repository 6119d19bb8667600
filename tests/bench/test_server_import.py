"""The figures of an import: measured on a real file, its floor beside it."""

from __future__ import annotations

from brokerkm.bench.server_import import import_devices


def test_an_import_is_slower_than_its_seals_alone() -> None:
    """All devices are seated, which takes more than to seal for them; listing has no floor."""
    seated, listed = import_devices(300)
    assert seated.floor is not None
    assert 0 < seated.value < seated.floor
    assert listed.value > 0
