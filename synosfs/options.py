"""Mount options: the words that follow ``-o``, what each means here, and the record a mount is made from.

A word is either honoured (it ends up in ``MountOptions``), spoken to somebody else (mount(8), fstab, systemd) and
dropped, or refused by name. None is accepted and ignored.

One word is for finding faults, and for a trio or a pyfuse3 that turns out to be another than it seems:
``receive=plain`` has requests received without the stand-in for pyfuse3's loop (``fs.receive``), more slowly.
"""

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from synosfs.errors import SynosError


@dataclass(frozen=True, slots=True)
class MountOptions:
    """All that a mount needs to know. ``flags`` are handed to libfuse untouched and never contradict each other."""

    mountpoint: str
    source: str = "synosfs"
    allow_other: bool = False
    plain_receive: bool = False
    confined: str = "ipc"
    flags: frozenset[str] = frozenset()
    #: By name, those of ``process.accounts.Limits`` that differ from the defaults.
    limits: Mapping[str, int] = field(default_factory=dict)


#: How much one user may hold of the daemon: ``-o max_sessions=100``.
LIMITS = (
    "max_sessions",
    "max_memory",
    "max_descriptors",
    "max_attachments",
    "max_waiting",
    "max_queue_bytes",
    "max_children",
)

_PAIRS = (
    ("rw", "ro"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("exec", "noexec"),
    ("async", "sync"),
    ("atime", "noatime"),
)
_OPPOSITE = {word: other for pair in _PAIRS for word, other in (pair, pair[::-1])}

#: The mount flags that libfuse 3.14 and its fusermount3 both know (lib/mount.c, util/fusermount.c).
FLAGS = frozenset(_OPPOSITE) - {"rw", "ro"} | {"dirsync"}

#: Flags that fusermount3 takes from root only; from others it would print a line and drop them.
ROOT_FLAGS = frozenset({"suid", "dev"})

#: Words addressed to mount(8), fstab readers and systemd, and words that state what is the case anyhow.
_SPOKEN_TO_OTHERS = frozenset(
    ("auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "comment")
) | {"defaults", "rw", "relatime", "diratime", "default_permissions"}

_REFUSED = {
    "ro": "every request is a write to the file 'syscall'; mount read-write, and open files read-only just to look",
    "remount": "a mounted synosfs cannot change its options; unmount it and mount it again",
    "allow_root": "use allow_other",
    "auto_unmount": "not needed, the next start replaces a mount whose daemon has died",
    "nodiratime": "libfuse has no such flag; noatime includes it",
    "strictatime": "libfuse has no such flag; leave it out",
}

#: The words that mean something here.
HONOURED = (*sorted(FLAGS), "allow_other", "fsname", "receive", "confined", *LIMITS)

_KNOWN = (*HONOURED, *_SPOKEN_TO_OTHERS, *_REFUSED)


def parse_mount_words(mountpoint: str, source: str | None, words: Iterable[str]) -> MountOptions:
    """Make the record from the words of all ``-o`` lists, in their order; EINVAL names the word that cannot be had.

    Of two opposites the later one counts, as in mount(8). That is settled here because ``flags`` keeps no order.
    """
    chosen: dict[str, str | None] = {}
    for word in filter(None, words):
        name, equals, value = word.partition("=")
        chosen.pop(_OPPOSITE.get(name, ""), None)
        chosen[name] = value if equals else None
    for name, given in chosen.items():
        _check(name, given)
    # The kernel gets the source inside a comma-separated list of its own.
    name = chosen.get("fsname") or source or "synosfs"
    if "," in name:
        raise SynosError(errno.EINVAL, f"the source '{name}' has a comma in it; choose a name without")
    return MountOptions(
        mountpoint,
        name,
        allow_other="allow_other" in chosen,
        plain_receive=chosen.get("receive") == "plain",
        confined=chosen.get("confined") or "ipc",
        limits={name: int(chosen[name] or 0) for name in LIMITS if name in chosen},
        flags=FLAGS & chosen.keys(),
    )


def _check(name: str, value: str | None) -> None:
    if name in _REFUSED:
        raise SynosError(errno.EINVAL, f"mount option '{name}' is refused: {_REFUSED[name]}")
    if name == "fsname":
        if not value:
            raise SynosError(errno.EINVAL, "mount option 'fsname' needs a name: fsname=NAME")
    elif name in LIMITS:
        if not (value or "").isascii() or not (value or "").isdigit() or not 0 < int(value or 0) < 1 << 48:
            raise SynosError(errno.EINVAL, f"mount option '{name}' is a number: {name}=1000")
    elif name == "receive":
        if value not in ("fast", "plain"):
            raise SynosError(errno.EINVAL, "mount option 'receive' is fast or plain: receive=plain")
    elif name == "confined":
        if value not in ("allow", "ipc", "deny"):
            raise SynosError(errno.EINVAL, "mount option 'confined' is allow, ipc or deny: confined=deny")
    elif name in FLAGS or name == "allow_other":
        if value is not None:
            raise SynosError(errno.EINVAL, f"mount option '{name}' takes no value")
    elif name not in _SPOKEN_TO_OTHERS and not name.startswith(("x-", "X-")):
        raise SynosError(errno.EINVAL, f"unknown mount option '{name}'; {_suggestion(name)}")


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - 5 ms, on the way to an error only

    nearest = get_close_matches(name, _KNOWN, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else "synosfs --help lists them"
