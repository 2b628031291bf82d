"""sysinfo(2): how much memory the machine has, how many processes, and for how long it has run."""

from ctypes import c_int, c_void_p

from synosfs.host.libc import bind, checked, now
from synosfs.host.structs import Layout

_SYSINFO = Layout(
    {
        "uptime": "l",
        **{f"_load{minutes}": "8x" for minutes in (1, 5, 15)},
        **dict.fromkeys(("totalram", "freeram", "sharedram", "bufferram", "totalswap", "freeswap"), "L"),
        "procs": "H",
        "_pad": "2x",
        "_align": "0L",
        **dict.fromkeys(("totalhigh", "freehigh"), "L"),
        "mem_unit": "I",
        "_end": "0L",
    }
)

_sysinfo = bind(now, "sysinfo", c_int, c_void_p)


def sysinfo() -> dict[str, int]:
    """The fields of ``struct sysinfo`` by their names."""
    buffer = _SYSINFO.buffer()
    checked(_sysinfo(buffer))
    return _SYSINFO.named(buffer)
