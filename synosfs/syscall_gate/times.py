"""Conversions of times: time-outs in seconds, and what C says in a struct, in nanoseconds.

Each takes seconds with a fraction, the struct as a list, or where C has a pointer NULL for none. See ``converters``.
"""

from decimal import Decimal
from typing import Any

from synosfs.errors import excerpt
from synosfs.syscall_gate.converters import BadArgument, is_null, parse_int, ranged, seconds

_S = 1_000_000_000

#: The earliest time of a file that C can say, in seconds.
_EARLIEST = -(1 << 63)

#: Access and modification, in nanoseconds since 1970; None: it is not given.
Pair = tuple[int | None, int | None]


def timeout(value: Any) -> float | None:
    """Seconds, or a struct timespec as [tv_sec, tv_nsec]; None and NULL wait for ever."""
    if value is None or is_null(value):
        return None
    if not isinstance(value, list):
        return seconds(value)
    tv_sec, tv_nsec = _struct(value, "tv_nsec", _S)
    return seconds(tv_sec + tv_nsec / _S)


def timespec(value: Any) -> int | None:
    """Seconds with a fraction, as nanoseconds; or a struct timespec. Below 0 it is the host's to refuse."""
    if is_null(value):
        return None
    if isinstance(value, list):
        tv_sec, tv_nsec = _struct(value, "tv_nsec", _S)
        return min(tv_sec, 1 << 62) * _S + tv_nsec
    return _nanoseconds(value, 0)


def itimerspec(value: Any) -> tuple[int | None, int | None]:
    """When it expires, in nanoseconds; or a struct itimerspec, and so how often after that as well."""
    if _is_pair(value):
        return timespec(value[1]), timespec(value[0])
    return timespec(value), None


def timeval(value: Any) -> int | None:
    """The time of a file: seconds with a fraction, of which whole microseconds count; or a struct timeval."""
    if is_null(value):
        return None
    if isinstance(value, list):
        tv_sec, tv_usec = _struct(value, "tv_usec", 1_000_000)
        return _whole_seconds(tv_sec) + tv_usec * 1000
    return _nanoseconds(value, _EARLIEST) // 1000 * 1000


def timevals(value: Any) -> Pair:
    """The first of two of them; or both, as utimes(2) has them."""
    return (timeval(value[0]), timeval(value[1])) if _is_pair(value) else (timeval(value), None)


def utimbuf_time(value: Any) -> int | None:
    """One of utime(2): whole seconds."""
    return None if is_null(value) else _whole_seconds(value)


def utimbuf(value: Any) -> Pair:
    """The first of two of them; or both, as struct utimbuf has them."""
    if not isinstance(value, list):
        return utimbuf_time(value), None
    if len(value) != 2:
        raise BadArgument("wants seconds, or actime and modtime")
    return _whole_seconds(value[0]), _whole_seconds(value[1])


_time_t = ranged(64)


def _whole_seconds(value: Any) -> int:
    return int(_time_t(value)) * _S


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, list) for part in value)


def _struct(value: list[Any], fraction: str, per_second: int) -> tuple[int, int]:
    if len(value) != 2:
        raise BadArgument(f"wants seconds, or tv_sec and {fraction}")
    whole, part = map(parse_int, value)
    if not 0 <= part < per_second:
        raise BadArgument(f"wants {fraction} from 0 to {per_second - 1}, not {part}")
    return whole, part


def _nanoseconds(value: Any, least: int) -> int:
    whole = seconds(value, least)
    # A double holds no nanoseconds of today's date, so what is written in decimals is read as decimals.
    return int(Decimal(excerpt(value, 100)).scaleb(9)) if isinstance(value, bytes) else round(whole * _S)
