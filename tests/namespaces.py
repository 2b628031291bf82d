"""Ways for a test's child into namespaces of its own."""

import ctypes

from native import checked, libc

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
CLONE_NEWNET, CLONE_NEWUTS, CLONE_NEWCGROUP = 0x40000000, 0x4000000, 0x2000000


def unshare(flags: int) -> None:
    checked(libc.unshare(ctypes.c_int(flags)))
