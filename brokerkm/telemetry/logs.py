"""What is logged, and how: text for people, an object a line for machines, or with the journal's priorities.

Whatever others chose (member ids, topics, a broker's reasons) cannot break a line or move a terminal's cursor. Secrets
are not logged; should one of those that this process was given end up in a message all the same, it is struck out.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMATS: Final = ("text", "json", "journal")
STRUCK_OUT: Final = "***"
MAX_LINE: Final = 16_384  # characters of a message; tracebacks are cut there too
_LOGIN: Final = re.compile(r"(//[^/\s:@]*:)[^/\s@]+(?=@)")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3)
_DEBUG: Final = 7
_SHORTEST: Final = 6  # characters of a secret that is struck out; a shorter one is part of many words


class Redaction:
    """Strikes secrets out of texts."""

    def __init__(self) -> None:
        self._secrets: Final[set[str]] = set()

    def hide(self, secrets: Iterable[str]) -> None:
        """Strike out these from now on."""
        self._secrets.update(secret for secret in secrets if len(secret) >= _SHORTEST)

    def apply(self, text: str) -> str:
        """Return `text` without passwords in URLs and without what is to be hidden."""
        for secret in self._secrets:
            text = text.replace(secret, STRUCK_OUT)
        return _LOGIN.sub(rf"\g<1>{STRUCK_OUT}", text)


class LineFormatter(logging.Formatter):
    """Formats each record as one line.

    Args:
        style: one of `FORMATS`.
    """

    def __init__(self, style: str, redaction: Redaction) -> None:
        super().__init__()
        self._format: Final = style
        self._redaction: Final = redaction

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = self._redaction.apply(record.getMessage())[:MAX_LINE]
        trace = ""
        if record.exc_info:
            trace = self._redaction.apply(self.formatException(record.exc_info))[-MAX_LINE:]
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        if self._format == "json":
            return _json(record, moment, message, trace)
        text = message + (f"\n{trace}" if trace else "")
        shown = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)
        if self._format == "journal":
            return f"<{_priority(record.levelno)}>{record.name}: {shown}"
        return f"{moment} {record.levelname} {record.name}: {shown}"


class Logs:
    """The root logger's only handler, whose level and format may change at any time.

    Args:
        stream: standard error if there is none.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.redaction: Final = Redaction()
        self._handler: Final = logging.StreamHandler(stream or sys.stderr)

    def configure(self, level: str, style: str) -> None:
        """Log what is at least as grave as `level`, in a style of `FORMATS`."""
        self._handler.setFormatter(LineFormatter(style, self.redaction))
        root = logging.getLogger()
        if self._handler not in root.handlers:
            root.addHandler(self._handler)
        root.setLevel(level.upper())

    def close(self) -> None:
        """Log no more."""
        logging.getLogger().removeHandler(self._handler)


def _json(record: logging.LogRecord, moment: str, message: str, trace: str) -> str:
    fields = {"time": moment, "level": record.levelname.lower(), "logger": record.name, "message": message}
    if trace:
        fields["exception"] = trace
    return json.dumps(fields)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)
