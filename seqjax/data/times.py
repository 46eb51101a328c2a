"""Times of items: numbers, dates, or text that says a date or a time; and the times that come after them.

A time is a number on a clock: of dates the day, of datetimes the microsecond (or what their type counts),
of numbers the number itself. Datetimes with a zone have two: the instant, which orders rows, and the time
that the clock on the wall shows, in which days and months are counted.

Times are counted on by a sequence's step: months, where all of its times are on one day of the month (or its
last) at one time of the day; days, where all are at one time of the day; else seconds, or plain numbers. The
step is the median of the last ones, which is the usual one where a sequence has one.
"""

import re
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Shaped

from seqjax.data.table_files import Piece
from seqjax.errors import DataError

RECENT = 32
"""Number of steps that are looked at, the newest ones."""
DAY = 86_400_000_000
"""Microseconds, in which text is counted."""
ISO = re.compile(
    r"\d{4}(?P<dash>[-/.])\d\d(?P<day>(?P=dash)\d\d"
    r"((?P<sep>[T ])\d\d:\d\d(?P<seconds>:\d\d(?P<fraction>\.\d+)?)?)?)?"
)
TOO_FINE = r"\.\d{6}\d*[1-9]"
"""A fraction of a second that is finer than microseconds."""
CLOCK_AND_ZONE = r"^(.*\d:\d\d.*?) ?([zZ]|UTC|[+-]\d\d(?::?\d\d)?)$"
"""A time, and the zone behind it."""
DAY_IN_DIGITS = "%Y%m%d"
FORMS = "2024-01-31, 2024-01-31 05:00, 2024-01-31T05:00:00.5+01:00 or the like"

# From a column to numbers
# ------------------------------------------------------------------------------------


def checked_time(piece: Piece, column: pl.Series, time_format: str | None) -> pl.Series:
    """The instants of a column of times, by which rows are ordered; its values are checked.

    Args:
      piece: Where the column is from.
      column: Times of any type.
      time_format: The form of text; None reads ISO 8601.

    Returns:
      Int64 or, of decimal numbers, Float64.

    Raises:
      DataError: A time is missing, or is none.
    """
    if column.null_count():
        raise DataError(f"{piece.place(column.name, column.is_null())} is empty. Every row needs a time.")
    if _is_text(column, time_format):
        return _checked_text(piece, column.cast(pl.String), time_format)
    if column.dtype.is_decimal() or column.dtype.is_float():
        column = column.cast(pl.Float64)
        if not column.is_finite().all():
            place = piece.place(column.name, ~column.is_finite())
            raise DataError(f"{place} is no finite number. Every row needs a time.")
        return column
    if not (column.dtype.is_integer() or isinstance(column.dtype, (pl.Date, pl.Datetime, pl.Duration))):
        raise DataError(
            f"{piece.file}: column {column.name!r} is of type {column.dtype}, which says no time. A column "
            "of times holds whole or decimal numbers, dates, times with a date, or text that says these."
        )
    numbers = column.to_physical().cast(pl.Int64, strict=False)
    if numbers.null_count():
        place = piece.place(column.name, numbers.is_null())
        raise DataError(f"{place} is a number of more than 64 bits, which orders no items.")
    return numbers


def kept(column: pl.Series) -> pl.Series:
    """A column of times in a type that files have."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        return column.cast(pl.String)
    return column.cast(pl.Int64) if isinstance(column.dtype, pl.Int128) else column


def _is_text(column: pl.Series, time_format: str | None) -> bool:
    as_text = column.dtype.is_integer() and time_format is not None
    return as_text or isinstance(column.dtype, (pl.String, pl.Categorical, pl.Enum))


def _checked_text(piece: Piece, column: pl.Series, time_format: str | None) -> pl.Series:
    instants = _instants(column, time_format)
    if instants.null_count():
        wrong = instants.is_null()
        forms = f"of the form {time_format!r} (time_format)"
        if time_format is None:
            forms = f"{FORMS}, to the microsecond. Say another form by time_format, such as '%d.%m.%Y %H:%M'"
        raise DataError(
            f"{piece.place(column.name, wrong)} holds {column.filter(wrong)[0]!r}, which is no time: it must "
            f"be {forms}."
        )
    naive = ~column.str.contains(CLOCK_AND_ZONE)
    if time_format is None and naive.any() and not naive.all():
        place = piece.place(column.name, naive)
        raise DataError(f"{place} holds a time without a zone, but others have one. Write one in every row.")
    return instants


def _instants(text: pl.Series, time_format: str | None) -> pl.Series:
    """Microseconds since 1970 (Int64), in UTC where there is a zone; null where the text says no time."""
    if time_format is not None:
        return _parsed(text, time_format)
    result = pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    left = ~text.str.contains(TOO_FINE)
    # One form is tried after the other, each as the first cell that is left has it.
    while left.any():
        cells = text.filter(left)
        form = _form(cells[0])
        parsed = None if form is None else _parsed(cells, form)
        if parsed is None or parsed[0] is None:
            break
        result = result.scatter(left.arg_true(), parsed)
        left = left & result.is_null()
    return result


def _parsed(text: pl.Series, form: str) -> pl.Series:
    try:
        if "%z" in form:
            utc = text.str.replace(r" ?(UTC|z)$", "Z")
            dtype, form = pl.Datetime("us", "UTC"), form.replace("%z", "%#z")
            return utc.str.strptime(dtype, form, strict=False).to_physical()
        return text.str.strptime(pl.Datetime("us"), form, strict=False).to_physical()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"time_format: {form!r} reads no time ({reason}). Write it as strptime does."
        ) from error


def _form(cell: str) -> str | None:
    """The form of a time in ISO 8601; None where it has none."""
    zoned = re.match(CLOCK_AND_ZONE, cell)
    match = ISO.fullmatch(zoned[1] if zoned else cell)
    if match is None:
        return None
    form = "%Y{0}%m{0}%d".format(match["dash"])[: 8 if match["day"] else 5]
    form += f"{match['sep']}%H:%M" if match["sep"] else ""
    return form + (":%S%.f" if match["seconds"] else "") + ("%z" if zoned else "")


# From numbers to times
# ------------------------------------------------------------------------------------


class _Clock(NamedTuple):
    """Times as numbers."""

    instant: Shaped[np.ndarray, "N"]
    """Int64 or, of decimal numbers, float64."""
    wall: Shaped[np.ndarray, "N"]
    """The same in the time of the place; the instants themselves where there is no zone."""
    day: int | None
    """Length of a day; None where times are plain numbers."""


class _Steps(NamedTuple):
    """The steps of S sequences: in months, else in days, else in units of the clock; 0 is none."""

    months: Int64[np.ndarray, "S"]
    days: Int64[np.ndarray, "S"]
    units: Shaped[np.ndarray, "S"]
    day_of_month: Int64[np.ndarray, "S"]
    """Of steps in months, from 0; shorter months end before it."""
    usual: Bool[np.ndarray, "S"]
    """True where more than half of the steps are this one."""


class Recent(NamedTuple):
    """Times of S sequences, in order; the last one stands in for those that have a single time."""

    times: pl.Series
    sequence: Int64[np.ndarray, "N"]
    """The sequence of each, from 0."""


def counted_on(
    recent: Recent,
    base: pl.Series,
    sequence: Int64[np.ndarray, "B"],
    counts: Int64[np.ndarray, "B"],
    time_format: str | None,
) -> tuple[pl.Series, Bool[np.ndarray, "S"]]:
    """The times so many steps after (or, below 0, before) times of sequences.

    Args:
      recent: The times from which the steps of sequences are taken.
      base: The times that are counted on.
      sequence: The sequence of each.
      counts: The number of steps.
      time_format: The form of text; None is ISO 8601.

    Returns:
      Times of the type of those that are given; and of each sequence, if it has a usual step.
    """
    every = pl.concat([recent.times, base])
    if time_format is None and _are_days(every):
        time_format = DAY_IN_DIGITS
    clock, n = _clock(every, time_format), len(recent.times)
    steps = _steps(_Clock(clock.instant[:n], clock.wall[:n], clock.day), recent.sequence)
    at = _Steps(*(array[sequence] for array in steps))
    instant, wall = clock.instant[n:], clock.wall[n:]
    if clock.day is None:
        return _numbers_like(every, instant + counts * at.units), steps.usual
    date, time_of_day = np.divmod(wall, clock.day)
    months = _month(date) + counts * at.months
    in_month = _first_day(months) + np.minimum(at.day_of_month, _days(months) - 1)
    dates = np.where(at.months > 0, in_month, date + counts * at.days)
    moved = dates * clock.day + time_of_day - wall
    is_calendar = (at.months > 0) | (at.days > 0)
    shift = np.where(is_calendar, moved, counts * at.units)
    return _times_like(base, _Clock(instant, wall, clock.day), shift, is_calendar, time_format), steps.usual


def _clock(times: pl.Series, time_format: str | None) -> _Clock:
    if _is_text(times, time_format):
        text = times.cast(pl.String)
        instant = _instants(text, time_format).to_numpy()
        return _Clock(instant, instant + _offset(text), DAY)
    if isinstance(times.dtype, (pl.Date, pl.Datetime)):
        instant = times.to_physical().cast(pl.Int64).to_numpy()
        if isinstance(times.dtype, pl.Date):
            return _Clock(instant, instant, 1)
        day = DAY * {"ms": 1, "us": 1000, "ns": 1_000_000}[times.dtype.time_unit] // 1000
        return _Clock(instant, times.dt.replace_time_zone(None).to_physical().to_numpy(), day)
    if times.dtype.is_float() or times.dtype.is_decimal():
        numbers = times.cast(pl.Float64).to_numpy()
        return _Clock(numbers, numbers, None)
    numbers = times.to_physical().cast(pl.Int64).to_numpy()
    return _Clock(numbers, numbers, None)


def _are_days(times: pl.Series) -> bool:
    """True for whole numbers that say days, as 20240131 does."""
    if not times.dtype.is_integer():
        return False
    numbers = times.cast(pl.Int64, strict=False)
    if not numbers.is_between(1900_01_01, 2100_12_31).fill_null(value=False).all():
        return False
    return not _parsed(times.cast(pl.String), DAY_IN_DIGITS).has_nulls()


def _offset(text: pl.Series) -> Int64[np.ndarray, "N"]:
    """Microseconds by which the clock on the wall is ahead of UTC; 0 where there is no zone."""
    zone = text.str.extract(CLOCK_AND_ZONE, 2).str.replace(r"^(UTC|[zZ])$", "+00").fill_null("+00")
    minutes = zone.str.slice(1, 2).cast(pl.Int64) * 60
    minutes += zone.str.extract(r"^...:?(..)$").cast(pl.Int64).fill_null(0)
    sign = zone.str.starts_with("-").cast(pl.Int64) * -2 + 1
    return (minutes * sign * (DAY // 1440)).to_numpy()


def _steps(clock: _Clock, sequence: Int64[np.ndarray, "N"]) -> _Steps:
    """The steps of sequences; where one has none, those of the last one, else a day or 1."""
    n = int(sequence[-1]) + 1
    # Items at one time make no step.
    differs = np.append(True, (np.diff(sequence) != 0) | (np.diff(clock.instant) != 0))
    sequence, instant, wall = sequence[differs], clock.instant[differs], clock.wall[differs]
    within = np.flatnonzero(np.diff(sequence) == 0)
    of = sequence[within]
    units, usual = _median(np.diff(instant)[within], of, n)
    zeros = np.zeros(n, np.int64)
    if clock.day is None:
        has = units > 0
        return _Steps(zeros, zeros, np.where(has, units, units[-1] or 1), zeros, usual)
    first = np.searchsorted(sequence, np.arange(n))
    date, time_of_day = np.divmod(wall, clock.day)
    month = _month(date)
    day, length = date - _first_day(month), _days(month)

    def every(holds: Bool[np.ndarray, "K"], whose: Int64[np.ndarray, "K"]) -> Bool[np.ndarray, "S"]:
        return np.bincount(whose, ~holds, minlength=n) == 0

    has = np.bincount(of, minlength=n) > 0
    daily = has & every(time_of_day == time_of_day[first][sequence], sequence)
    daily &= every(np.diff(date)[within] > 0, of)
    ends = every(day == length - 1, sequence)
    day_of_month = np.where(ends & has, 30, np.maximum.reduceat(day, first))
    monthly = daily & every(day == np.minimum(day_of_month[sequence], length - 1), sequence)
    monthly &= every(np.diff(month)[within] > 0, of)
    (days, usual_days), (months, usual_months) = (
        _median(np.diff(values)[within], of, n) for values in (date, month)
    )
    steps = _Steps(
        np.where(monthly, months, 0),
        np.where(daily & ~monthly, days, 0),
        np.where(daily, 0, units),
        day_of_month,
        np.where(monthly, usual_months, np.where(daily, usual_days, usual)),
    )
    stand_in = [array[-1] for array in steps[:3]] if has[-1] else [0, 1, 0]
    months, days, units = (
        np.where(has, array, value) for array, value in zip(steps[:3], stand_in, strict=True)
    )
    return steps._replace(months=months, days=days, units=units)


def _median(
    values: Shaped[np.ndarray, "K"], sequence: Int64[np.ndarray, "K"], n: int
) -> tuple[Shaped[np.ndarray, "S"], Bool[np.ndarray, "S"]]:
    """The median of each sequence's values (0 where it has none), and if more than half are equal to it."""
    if not len(values):
        return np.zeros(n, values.dtype), np.zeros(n, np.bool_)
    order = np.lexsort((values, sequence))
    counts = np.bincount(sequence, minlength=n)
    at = np.cumsum(counts) - counts + np.maximum(counts - 1, 0) // 2
    median = np.where(counts > 0, values[order][np.minimum(at, len(values) - 1)], 0)
    alike = np.isclose(values, median[sequence], rtol=1e-9, atol=0)
    return median, 2 * np.bincount(sequence, alike, minlength=n) > counts


def _month(date: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """The month of days since 1970, counted from 1970 on."""
    return date.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _first_day(month: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    return month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def _days(month: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    return _first_day(month + 1) - _first_day(month)


def _numbers_like(times: pl.Series, values: Shaped[np.ndarray, "B"]) -> pl.Series:
    """Numbers as times of a type; decimal ones with as many digits as the times have."""
    if np.issubdtype(values.dtype, np.floating):
        given = times.cast(pl.Float64).to_numpy()
        digits = next((digits for digits in range(13) if (np.round(given, digits) == given).all()), None)
        values = values if digits is None else np.round(values, digits)
    return pl.Series(values).cast(times.dtype, strict=False)


def _times_like(
    base: pl.Series,
    clock: _Clock,
    shift: Int64[np.ndarray, "B"],
    is_calendar: Bool[np.ndarray, "B"],
    time_format: str | None,
) -> pl.Series:
    """Times of the type of `base`, which `clock` shows, so much later.

    Args:
      base: The times that are counted on.
      clock: The same as numbers.
      shift: The distance.
      is_calendar: True where it is one on the clock on the wall.
      time_format: The form of text.
    """
    wall = pl.Series(clock.wall + shift)
    if _is_text(base, time_format):
        return _texts_like(base.cast(pl.String), wall.cast(pl.Datetime("us")), time_format).cast(base.dtype)
    if not isinstance(base.dtype, pl.Datetime) or base.dtype.time_zone is None:
        return wall.cast(base.dtype)
    unit, zone = base.dtype.time_unit, base.dtype.time_zone
    later = pl.Series(clock.instant + shift).cast(pl.Datetime(unit, "UTC")).dt.convert_time_zone(zone)
    local = wall.cast(pl.Datetime(unit)).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.set(pl.Series(~is_calendar) | local.is_null(), None).fill_null(later)


def _texts_like(like: pl.Series, wall: pl.Series, time_format: str | None) -> pl.Series:
    """Times written as other texts are, with their zones."""
    result = pl.Series([None], dtype=pl.String).new_from_index(0, len(like))
    zone = like.str.extract(CLOCK_AND_ZONE, 2).fill_null("")
    styles = like.str.replace_all("[0-9]", "0") + zone
    for style in styles.unique():
        rows = (styles == style).arg_true()
        cell, own_zone, times = like[rows[0]], zone[rows[0]], wall.gather(rows)
        form = time_format or _form(cell)
        assert form is not None, "texts that say no time are refused"
        fraction = re.search(r"\.(\d+)", cell)
        if time_format is None and fraction is not None:
            # Chrono writes 3, 6 or 9 digits.
            before, digits = form.replace("%.f", "").replace("%z", ""), len(fraction[1])
            text = times.dt.strftime(before) + times.dt.strftime("%.9f").str.head(1 + digits)
            text += cell[fraction.end() :]
        else:
            gap = " " if time_format is None and cell.endswith(f" {own_zone}") else ""
            text = times.dt.strftime(form.replace("%z", gap + own_zone))
        result = result.scatter(rows, text)
    return result
