"""Ways for a test's child to confine itself, as sandboxes do: Landlock, seccomp, no_new_privs. By raw system calls."""

import ctypes
import os
import struct
from ctypes import c_int, c_long, c_ulong
from pathlib import Path

from native import checked, libc

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_RULESET_VERSION, _PATH_BENEATH = 1, 1

#: EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE, MAKE_*: all access of Landlock's first version.
_ACCESS = (1 << 13) - 1
_READ_AND_WRITE_FILE = 1 << 1 | 1 << 2


def no_new_privs() -> None:
    checked(libc.prctl(c_int(_PR_SET_NO_NEW_PRIVS), c_ulong(1), c_ulong(0), c_ulong(0), c_ulong(0)))


def seccomp() -> None:
    """A filter that lets all pass. It takes CAP_SYS_ADMIN or no_new_privs."""
    allow_all = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))  # return SECCOMP_RET_ALLOW
    program = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(allow_all)))
    checked(libc.prctl(c_int(_PR_SET_SECCOMP), c_ulong(_SECCOMP_MODE_FILTER), program))


def has_landlock() -> bool:
    return libc.syscall(c_long(_LANDLOCK_CREATE_RULESET), None, c_ulong(0), c_int(_RULESET_VERSION)) > 0


def landlock(*allowed: Path) -> None:
    """From now on the files of these directories can be opened, and no others."""
    handled = ctypes.create_string_buffer(struct.pack("=Q", _ACCESS))
    ruleset = checked(libc.syscall(c_long(_LANDLOCK_CREATE_RULESET), handled, c_ulong(8), c_int(0)))
    for path in allowed:
        directory = os.open(path, os.O_PATH)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _READ_AND_WRITE_FILE, directory))
        checked(libc.syscall(c_long(_LANDLOCK_ADD_RULE), c_int(ruleset), c_int(_PATH_BENEATH), rule, c_int(0)))
        os.close(directory)
    no_new_privs()
    checked(libc.syscall(c_long(_LANDLOCK_RESTRICT_SELF), c_int(ruleset), c_int(0)))
    os.close(ruleset)
