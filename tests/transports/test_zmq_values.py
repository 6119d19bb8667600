"""ZeroMQ: the hub's last values, without a network."""

from __future__ import annotations

from brokerkm_zmq import values, wire


def put(cache: values.LastValues, topic: str, payload: bytes) -> None:
    """Keep a value that fits."""
    assert cache.fits(topic, payload)
    cache.put(topic, wire.head(topic, None, retain=True), payload, None)


def read(cache: values.LastValues, pattern: str, limit: int) -> list[str]:
    """Read all pages."""
    found: list[str] = []
    cursor: tuple[int, int] | None = (0, 0)
    while cursor is not None:
        page = cache.page(pattern, cursor, limit, lambda _: True)
        assert len(page.values) <= limit
        found += [value.topic for value in page.values]
        cursor = page.cursor
    return found


def test_pages_have_every_value_once() -> None:
    """Whatever their size, and however many topics are looked at for one."""
    cache = values.LastValues(1 << 20, 1 << 30)
    for index in range(values.SCAN + 10):
        put(cache, f"n/{index}" if index % 1000 == 0 else f"m/{index}", b"x")
    wanted = [f"n/{index}" for index in range(0, values.SCAN + 10, 1000)]
    assert wanted == read(cache, "n/+", 3) == read(cache, "n/#", 100) == read(cache, "n/+", len(wanted))


def test_topics_are_bounded() -> None:
    """A new one does not fit; a changed one does; a cleared one makes room."""
    cache = values.LastValues(2, 1 << 20)
    put(cache, "a", b"1")
    put(cache, "b", b"1")
    assert not cache.fits("c", b"1")
    put(cache, "a", b"2")
    put(cache, "c", b"")
    put(cache, "a", b"")
    put(cache, "c", b"1")
    assert sorted(cache) == ["b", "c"]


def test_bytes_are_bounded() -> None:
    """Whatever is put, changed and cleared, the account is right in the end."""
    cache = values.LastValues(1000, 10_000)
    assert not cache.fits("a", bytes(10_000))
    put(cache, "a", bytes(9000))
    assert not cache.fits("b", bytes(1000))
    put(cache, "a", bytes(100))
    put(cache, "b", bytes(9000))
    for topic in ("a", "b"):
        put(cache, topic, b"")
    put(cache, "c", bytes(9000))
    assert len(cache) == 1


def test_cleared_topics_do_not_pile_up() -> None:
    """A reader whose cursor is from before the tidying begins again and misses nothing."""
    cache = values.LastValues(1 << 20, 1 << 30)
    put(cache, "kept/1", b"x")
    page = cache.page("kept/+", (0, 0), 1, lambda _: True)
    for index in range(3 * values.SCAN):
        put(cache, f"gone/{index}", b"x")
        put(cache, f"gone/{index}", b"")
    put(cache, "kept/2", b"x")
    assert len(cache._places) < 2 * values.SCAN
    assert page.cursor is None
    stale = cache.page("kept/+", (0, values.SCAN), 10, lambda _: True)
    assert [value.topic for value in stale.values] == ["kept/1", "kept/2"]
    assert read(cache, "#", 1) == ["kept/1", "kept/2"]
