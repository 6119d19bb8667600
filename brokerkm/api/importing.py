"""The body of an import, read as it arrives and bounded; the rows in it are `brokerkm.service.rows`."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from brokerkm.api.problems import ProblemError
from brokerkm.errors import UsageError
from brokerkm.service.rows import FORMATS, MAX_LINE, Row, parser, rows

MAX_IMPORT: Final = 32 << 20  # bytes of one import
MAX_ROWS: Final = 100_000  # of one import


async def read_rows(chunks: AsyncIterator[bytes], media_type: str, size: int) -> AsyncIterator[list[Row]]:
    """Yield up to `size` rows at a time; raises `ProblemError` for what cannot be read as rows at all."""
    if media_type not in FORMATS:
        message = f"an import is {' or '.join(FORMATS)}, not {media_type[:80] or 'without a Content-Type'}"
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong-media-type", message)
    parse = parser(media_type)
    batch: list[Row] = []
    count = 0
    try:
        async for number, lines in _lines(chunks):
            for row in rows(lines, parse, number):
                count += 1
                if count > MAX_ROWS:
                    message = (
                        f"an import has up to {MAX_ROWS} rows: from line {row.line} on none was looked at; split it"
                    )
                    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", message)
                batch.append(row)
                if len(batch) == size:
                    yield batch
                    batch = []
    except UsageError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(error)) from None
    if batch:
        yield batch


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Yield whole lines with the number of the first of them."""
    number, rest = 1, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield number, lines
        number += len(lines)
        if len(rest) > MAX_LINE:
            break  # the line without an end is too long already
    yield number, [rest]
