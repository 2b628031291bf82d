"""The descriptors of a test, so that none outlives it."""

from doors import Door


class Descriptors:
    """What a case has opened through a door, closed at its end unless the case has done so with ``close``."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.open: set[int] = set()

    def keep(self, fd: int) -> int:
        self.open.add(fd)
        return fd

    def pipe(self, flags: str = "0") -> tuple[int, int]:
        ends = self.door.ok("pipe2", flags).results
        return self.keep(ends["read"]), self.keep(ends["write"])

    def sockets(self, flags: str = "0") -> tuple[int, int]:
        ends = self.door.ok("socketpair", flags).results
        return self.keep(ends["first"]), self.keep(ends["second"])

    def call(self, call: str, *args: object) -> int:
        """A call that answers a descriptor."""
        return self.keep(self.door.ok(call, *args).ret)

    def close(self, *fds: int) -> None:
        for fd in fds:
            self.open.remove(fd)
            self.door.ok("close", fd)
