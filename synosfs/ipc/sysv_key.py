"""Keys of System V objects: ftok(3)."""

from synosfs.errors import SynosError
from synosfs.host import path as host_path


def ftok(path: bytes, project: int, pid: int) -> int:
    """The key of a file and a project id, of which the low 8 bits count: ``id:8 st_dev:8 st_ino:16``, unsigned.

    The path is process ``pid``'s, and looked up with the calling thread's rights. It can lead anywhere, a dead network
    mount and the daemon's own mount among it: call from a thread that may wait. ENOENT, ENOTDIR, EACCES, ELOOP as
    stat(2) says.
    """
    try:
        status = host_path.stat_of(pid, path)
    except SynosError as error:
        raise SynosError(error.errno, f"'{path.decode('utf-8', 'backslashreplace')}': {error.message}") from None
    return (project & 0xFF) << 24 | (status.st_dev & 0xFF) << 16 | status.st_ino & 0xFFFF
