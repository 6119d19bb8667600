"""When a crontab line is due. The library is cronsim, imported here alone: it is part of the extra `server`."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Final

from brokerkm.errors import UsageError

if TYPE_CHECKING:
    import zoneinfo

_FIELDS: Final = 5
_MAX_COUNTED: Final = 1000


class Cron:
    """The times that five cron fields name in a time zone; all times are milliseconds since 1970.

    Around the change to summer time and back, it is as Debian's cron: no due time is lost, none comes twice.

    Raises:
        UsageError: the fields are none, or name no time at all.
    """

    def __init__(self, fields: str, zone: zoneinfo.ZoneInfo) -> None:
        self._zone: Final = zone
        self._fields: Final = fields
        if len(fields.split()) != _FIELDS:
            message = f"cron {fields[:80]!r}: it has {_FIELDS} fields: minute hour day month weekday, as in '0 3 * * 1'"
            raise UsageError(message)
        if self.next(0) is None:
            message = f"cron {fields[:80]!r}: there is no such day"
            raise UsageError(message)

    def next(self, after: int) -> int | None:
        """Return the first time after `after`."""
        return self._find(after, reverse=False)

    def last(self, until: int) -> int | None:
        """Return the last time that is not after `until`."""
        return self._find(until + 60_000 - until % 60_000, reverse=True)

    def count(self, after: int, until: int) -> int:
        """Return how many times there are after `after` and not after `until`, up to 1000."""
        number = 0
        for number in range(_MAX_COUNTED + 1):  # noqa: B007 - the number is the answer
            found = self.next(after)
            if found is None or found > until:
                break
            after = found
        return min(number, _MAX_COUNTED)

    def _find(self, start: int, *, reverse: bool) -> int | None:
        try:
            from cronsim import CronSim, CronSimError  # noqa: PLC0415 - an extra
        except ImportError:
            message = "rules on time need: pip install 'brokerkm[server]'"
            raise UsageError(message) from None
        moment = dt.datetime.fromtimestamp(start // 1000, self._zone)
        try:
            for found in itertools.islice(CronSim(self._fields, moment, reverse), 1):
                return int(found.timestamp()) * 1000
        except CronSimError as error:
            message = f"cron {self._fields[:80]!r}: {error}".lower()
            raise UsageError(message) from None
        return None
