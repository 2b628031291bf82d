"""The program that asks the host what threads sleep in. ``process.sleepers`` starts it and asks it.

What it reads, the process that it asks about can make wait: ``/proc/<tid>/syscall`` for as long as an execve takes,
``maps`` for as long as somebody has the lock of its memory, the memory itself for as long as a FUSE server of the
process's own takes for a page. So it is a process beside the daemon, which has nothing of the daemon's, can be killed
in each of these, and is left to itself where it cannot. Memory is read only where a page is there already
(``pagemap``), so that it takes somebody who changes it at that moment to make it wait. Nobody is traced or stopped.

It is run by itself, so it takes nothing but the standard library. Its argument are the numbers of the calls on this
machine; it ends with its standard input, the daemon's socket, or when nobody has asked for a minute. A request and an
answer are each a line of JSON.
"""

import ctypes
import json
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

#: It ends when nobody has asked for so long, in seconds.
_IDLE_S = 60.0

#: The answer for a thread that only its own process can wake.
IDLE = "idle"

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRESENT = 1 << 63
#: ``struct sembuf``; more operations than these are not shown.
_SEMBUF = struct.Struct("=HhH")
_MOST_OPERATIONS = 64
#: So much of a list of mappings is looked through, in bytes.
_MOST_MAPS = 4 << 20

_FUTEX_PRIVATE, _FUTEX_CLOCK_REALTIME = 128, 256
_FUTEX_WAIT, _FUTEX_WAIT_BITSET = 0, 9

_SHM = "/dev/shm/"


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _serve(requests: socket.socket, numbers: dict[str, int]) -> None:
    names = {number: name for name, number in numbers.items()}
    with requests.makefile("rwb") as stream:
        while select.select([requests], [], [], _IDLE_S)[0]:
            line = stream.readline()
            if not line:
                return
            what, argument = json.loads(line)
            answers = _calls(argument, names) if what == "calls" else _ends(set(argument))
            for answer in answers:
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()  # who waits for it may be told before another thread keeps the next from coming
            stream.write(b"null\n")
            stream.flush()


# --- what a thread sleeps in ------------------------------------------------------------------------------------------


def _calls(threads: list[tuple[int, int]], names: dict[int, str]) -> Iterator[dict[str, Any] | str]:
    """An answer for each thread, in order: the call and what its arguments lead to; nothing in it if it sleeps in none
    of these; IDLE if it waits for another thread of its process; the errno's name if it may not be looked at.
    """
    here = os.readlink("/proc/self/ns/ipc")
    shm = _SharedMemory()
    for pid, tid in threads:
        try:
            yield _call(pid, tid, names, here, shm)
        except PermissionError:
            yield "EACCES"
        except (OSError, ValueError):
            yield {}  # it has ended, or is not asleep any more


def _call(pid: int, tid: int, names: dict[int, str], here: str, shm: "_SharedMemory") -> dict[str, Any] | str:
    about = f"/proc/{pid}/task/{tid}"
    runs = _runs(about)
    words = _text(f"{about}/syscall").split()
    if len(words) < 7 or (name := names.get(int(words[0]))) is None:
        return {}
    args = [int(word, 16) for word in words[1:7]]
    found: dict[str, Any] = {"call": name, "args": args, "runs": runs, "stat": _stat(pid, tid)}
    if name in ("msgsnd", "msgrcv", "semop", "semtimedop"):
        if os.readlink(f"{about}/ns/ipc") != here:
            return {}  # its ids are those of others
        if name.startswith("sem"):
            found["operations"] = _operations(pid, args[1], args[2])
    elif name == "futex":
        if args[1] & ~(_FUTEX_CLOCK_REALTIME | _FUTEX_PRIVATE) not in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET):
            return {}
        is_own = bool(args[1] & _FUTEX_PRIVATE)
        if not is_own:
            found["file"], is_own = shm.name_at(f"{about}/maps", args[0])
        if is_own or not found["file"]:
            return IDLE if is_own and not args[3] else {}
    else:
        found["file"] = os.readlink(f"{about}/fd/{args[0]}")
        if name.startswith("mq_"):
            if os.readlink(f"{about}/ns/ipc") != here:
                return {}
        elif not found["file"].startswith("pipe:[") and "pipe" not in _text(f"{about}/wchan"):
            return {}  # another file than a FIFO
    return found if _runs(about) == runs else {}  # it has gone on meanwhile


def _runs(about: str) -> int:
    """How often the thread has run: it has slept since the last time if that is the same (schedstat, pcount)."""
    return int(_text(f"{about}/schedstat").split()[2])


def _stat(pid: int, tid: int) -> tuple[str, int, str]:
    """The program of the process, when it started, and the state of the thread."""
    head, _, tail = _text(f"/proc/{pid}/stat").rpartition(")")
    state = tail if tid == pid else _text(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2]
    return head.partition("(")[2], int(tail.split()[19]), state.split()[0]


def _text(path: str, most: int = 1 << 16) -> str:
    with open(path, "rb", buffering=0) as file:
        return os.read(file.fileno(), most).decode("utf-8", "replace")


def _operations(pid: int, address: int, count: int) -> list[tuple[int, int, int]] | None:
    """The operations of a semop; None where they cannot be read without waiting."""
    if not 0 < count <= _MOST_OPERATIONS:
        return None
    data = _memory(pid, address, count * _SEMBUF.size)
    return None if data is None else list(_SEMBUF.iter_unpack(data))


def _memory(pid: int, address: int, size: int) -> bytes | None:
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pages:
        first = address // _PAGE
        for page in range(first, (address + size - 1) // _PAGE + 1):
            entry = os.pread(pages.fileno(), 8, page * 8)
            if len(entry) < 8 or not int.from_bytes(entry, sys.byteorder) & _PRESENT:
                return None
    buffer = ctypes.create_string_buffer(size)
    ours, theirs = _Iovec(ctypes.addressof(buffer), size), _Iovec(address, size)
    read = _libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    return buffer.raw if read == size else None


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.argtypes = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
)
_libc.process_vm_readv.restype = ctypes.c_ssize_t


class _SharedMemory:
    """The daemon's /dev/shm, as it is for one request."""

    def __init__(self) -> None:
        self._device = ""
        self._names: dict[int, str] | None = None
        with suppress(OSError):
            device = os.stat(_SHM).st_dev
            self._device = f"{os.major(device):02x}:{os.minor(device):02x}"

    def name_at(self, maps: str, address: int) -> tuple[str, bool]:
        """The name in it of the file that is mapped there, or nothing, and whether the memory is the process's own. By
        the inode's number: sem_open(3) makes a file by another name, which is what maps goes on to show.
        """
        for line in _lines(maps):
            fields = line.split(None, 5)
            low, _, high = fields[0].partition("-")
            if int(low, 16) <= address < int(high, 16):
                return self._name_of(int(fields[4])) if fields[3] == self._device else "", fields[1].endswith("p")
        return "", False

    def _name_of(self, inode: int) -> str:
        if self._names is None:
            with os.scandir(_SHM) as entries:
                self._names = {entry.inode(): entry.name for entry in entries}
        return self._names.get(inode, "")


def _lines(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        read = 0
        for line in file:
            yield os.fsdecode(line.rstrip(b"\n"))
            read += len(line)
            if read > _MOST_MAPS:
                return


# --- who has an end of a pipe -----------------------------------------------------------------------------------------


def _ends(inodes: set[int]) -> Iterator[dict[str, Any]]:
    """For each process that has an end of these pipes: which, and for what (``r``, ``w``, both); ``unseen`` counts the
    processes that may not be looked at.
    """
    wanted = {f"pipe:[{inode}]": inode for inode in inodes}
    unseen = 0
    for pid in _processes():
        try:
            ends = _ends_of(pid, wanted)
        except PermissionError:
            unseen += pid != 1  # init may be kept from all eyes
            continue
        except OSError:
            continue  # it has ended
        if ends:
            yield {"pid": pid, "ends": ends}
    yield {"unseen": unseen}


def _processes() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdecimal())


def _ends_of(pid: int, wanted: dict[str, int]) -> list[tuple[int, str]]:
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError, KeyError):  # closed meanwhile; another file
            inode = wanted[os.readlink(f"/proc/{pid}/fd/{number}")]
            flags = next(line for line in _text(f"/proc/{pid}/fdinfo/{number}").splitlines() if "flags:" in line)
            found.add((inode, _ACCESS[int(flags.split()[1], 8) & os.O_ACCMODE]))
    return sorted(found)


_ACCESS = {os.O_RDONLY: "r", os.O_WRONLY: "w", os.O_RDWR: "rw"}


if __name__ == "__main__":
    with socket.socket(fileno=0) as daemon, suppress(BrokenPipeError, ConnectionResetError):
        _serve(daemon, json.loads(sys.argv[1]))
