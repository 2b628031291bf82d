"""Keys of System V objects: ftok(3)."""

from synosfs.host.path import Place
from synosfs.ipc import file_status


def ftok(place: Place, path: str, project: int) -> int:
    """The key of a file and a project id, of which the low 8 bits count: ``id:8 st_dev:8 st_ino:16``, unsigned.

    The path is the process's, walked with the calling thread's rights. It can lead anywhere, a dead network mount and
    the daemon's own mount among it: call from a thread that may wait. ENOENT, ENOTDIR, EACCES, ELOOP as stat(2) says.
    """
    status = file_status.status(place, path if "/" in path or not path else f"./{path}")
    return (project & 0xFF) << 24 | (status.st_dev & 0xFF) << 16 | status.st_ino & 0xFFFF
