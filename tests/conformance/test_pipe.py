"""Pipes, socket pairs and the descriptors that they are: what the calls answer when nobody has to wait."""

import os
import resource

import pytest
from doors import NOBODY, Door
from opened import Descriptors

PAGE = 4096
PIPE_BUF = 4096
CAPACITY = 65536


# --- pipe, pipe2, socketpair


def test_what_is_written_is_read(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    assert door.ok("write", write, b"hello\0\xff").ret == 7
    assert door.ok("read", read, 100).data == b"hello\0\xff"


def test_a_read_takes_what_there_is_up_to_its_size(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"abc")
    door.ok("write", write, b"defg")
    assert [door.ok("read", read, 5).data, door.ok("read", read, 5).data] == [b"abcde", b"fg"]


def test_pipe_has_no_flags_set(door: Door, fds: Descriptors) -> None:
    ends = door.ok("pipe").results
    for fd, access in ((fds.keep(ends["read"]), os.O_RDONLY), (fds.keep(ends["write"]), os.O_WRONLY)):
        assert door.ok("fcntl", fd, "F_GETFL").ret == access
        assert door.ok("fcntl", fd, "F_GETFD").ret == 0


@pytest.mark.parametrize("flags", ["O_CLOEXEC", "O_NONBLOCK", "O_DIRECT", "O_CLOEXEC|O_NONBLOCK|O_DIRECT"])
def test_pipe2_sets_the_flags_of_both_ends_and_o_direct_of_the_write_end(
    door: Door, fds: Descriptors, flags: str
) -> None:
    for access, fd in enumerate(fds.pipe(flags)):
        unseen = ("O_CLOEXEC",) if access == os.O_WRONLY else ("O_CLOEXEC", "O_DIRECT")
        status = access + sum(getattr(os, flag) for flag in flags.split("|") if flag not in unseen)
        assert door.ok("fcntl", fd, "F_GETFL").ret == status
        assert door.ok("fcntl", fd, "F_GETFD").ret == ("O_CLOEXEC" in flags)


@pytest.mark.parametrize("flags", ["O_APPEND", "O_RDWR", "O_CREAT", "O_NONBLOCK|O_TRUNC", "0x40000000"])
def test_pipe2_with_another_flag_is_einval(door: Door, flags: str) -> None:
    assert door.call("pipe2", flags).errno == "EINVAL"


def test_a_packet_is_read_whole_and_its_rest_is_lost(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe("O_DIRECT")
    for packet in (b"first", b"second", b"third"):
        door.ok("write", write, packet)
    assert door.ok("read", read, 100).data == b"first"
    assert door.ok("read", read, 3).data == b"sec"
    assert door.ok("read", read, 100).data == b"third"


def test_a_socket_pair_goes_both_ways(door: Door, fds: Descriptors) -> None:
    one, other = fds.sockets()
    door.ok("write", one, b"ping")
    door.ok("write", other, b"pong")
    assert door.ok("read", other, 10).data == b"ping"
    assert door.ok("read", one, 10).data == b"pong"


def test_socketpair_sets_its_flags(door: Door, fds: Descriptors) -> None:
    for fd in fds.sockets("SOCK_NONBLOCK|SOCK_CLOEXEC"):
        assert door.ok("fcntl", fd, "F_GETFL").ret == os.O_RDWR | os.O_NONBLOCK
        assert door.ok("fcntl", fd, "F_GETFD").ret == 1
        assert door.call("read", fd, 1).errno == "EAGAIN"


def test_socketpair_with_another_flag_is_einval(door: Door) -> None:
    assert door.call("socketpair", "0x40000000").errno == "EINVAL"


# --- the wrong end, no other end


@pytest.mark.parametrize(
    ("end", "call", "argument"), [(0, "write", b"x"), (1, "read", 1), (0, "write", b""), (1, "read", 0)]
)
def test_the_wrong_end_is_ebadf(door: Door, fds: Descriptors, end: int, call: str, argument: int | bytes) -> None:
    assert door.call(call, fds.pipe()[end], argument).errno == "EBADF"


def test_end_of_file_comes_after_the_data(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"last words")
    fds.close(write)
    assert [door.ok("read", read, 100).data for _ in range(3)] == [b"last words", b"", b""]


def test_end_of_file_comes_after_the_last_writer(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe("O_NONBLOCK")
    other = fds.call("dup", write)
    fds.close(write)
    assert door.call("read", read, 100).errno == "EAGAIN"
    fds.close(other)
    assert door.call("read", read, 100).data == b""


def test_a_write_that_nobody_can_read_is_epipe(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    fds.close(read)
    assert door.call("write", write, b"x").errno == "EPIPE"
    assert door.call("write", write, b"").ret == 0


def test_a_socket_whose_peer_is_closed_has_ended(door: Door, fds: Descriptors) -> None:
    one, other = fds.sockets()
    door.ok("write", other, b"bye")
    fds.close(other)
    assert [door.ok("read", one, 10).data for _ in range(2)] == [b"bye", b""]
    assert door.call("write", one, b"x").errno == "EPIPE"


# --- O_NONBLOCK


def fill(door: Door, write: int) -> int:
    """Until not a byte more goes in, with a descriptor that is O_NONBLOCK; how many went in."""
    count = 0
    for size in (PIPE_BUF, 1):
        while not (result := door.call("write", write, b"f" * size)).errno:
            count += result.ret
        assert result.errno == "EAGAIN"
    return count


def test_an_empty_pipe_is_eagain(door: Door, fds: Descriptors) -> None:
    assert door.call("read", fds.pipe("O_NONBLOCK")[0], 1).errno == "EAGAIN"


def test_a_read_of_nothing_from_an_empty_pipe_is_0(door: Door, fds: Descriptors) -> None:
    assert door.call("read", fds.pipe()[0], 0).data == b""


def test_a_full_pipe_is_eagain_and_holds_its_capacity(door: Door, fds: Descriptors) -> None:
    assert fill(door, fds.pipe("O_NONBLOCK")[1]) == CAPACITY


@pytest.mark.parametrize("size", [2, PIPE_BUF])
def test_a_nonblocking_write_up_to_pipe_buf_is_all_or_eagain(door: Door, fds: Descriptors, size: int) -> None:
    read, write = fds.pipe("O_NONBLOCK")
    fill(door, write)
    door.ok("read", read, size - 1)  # room for fewer than are to be written
    assert door.call("write", write, b"x" * size).errno == "EAGAIN"
    door.ok("read", read, PAGE)
    assert door.ok("write", write, b"x" * size).ret == size


def test_a_nonblocking_write_above_pipe_buf_writes_what_there_is_room_for(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe("O_NONBLOCK")
    assert door.ok("write", write, b"x" * (CAPACITY + 1000)).ret == CAPACITY
    door.ok("read", read, PAGE)
    assert door.ok("write", write, b"x" * (3 * PAGE)).ret == PAGE


def test_o_nonblock_can_be_set_and_cleared_and_is_shared_by_duplicates(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    other = fds.call("dup", read)
    door.ok("fcntl", read, "F_SETFL", "O_NONBLOCK")
    assert door.ok("fcntl", other, "F_GETFL").ret == os.O_NONBLOCK
    assert door.call("read", other, 1).errno == "EAGAIN"
    door.ok("fcntl", other, "F_SETFL", 0)
    assert door.ok("fcntl", read, "F_GETFL").ret == 0


# --- capacity, FIONREAD, offsets


@pytest.mark.parametrize(("asked", "given"), [(0, 4096), (1, 4096), (4096, 4096), (5000, 8192), (65537, 131072)])
def test_setpipe_sz_rounds_up_to_a_power_of_two_pages(door: Door, fds: Descriptors, asked: int, given: int) -> None:
    for end in fds.pipe():
        assert door.ok("fcntl", end, "F_SETPIPE_SZ", asked).ret == given
        assert door.ok("fcntl", end, "F_GETPIPE_SZ").ret == given


def test_setpipe_sz_below_the_content_is_ebusy(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    door.ok("write", write, b"x" * (2 * PAGE))
    assert door.call("fcntl", write, "F_SETPIPE_SZ", PAGE).errno == "EBUSY"
    door.ok("read", read, PAGE)
    assert door.ok("fcntl", write, "F_SETPIPE_SZ", PAGE).ret == PAGE


@pytest.mark.parametrize("size", [(1 << 31) + 1, (1 << 32) - 1])
def test_setpipe_sz_above_two_to_the_31_is_einval(door: Door, fds: Descriptors, size: int) -> None:
    """semantics.md has it for 2^31 as well; the host says EPERM there to whoever lacks CAP_SYS_RESOURCE."""
    assert door.call("fcntl", fds.pipe()[0], "F_SETPIPE_SZ", size).errno == "EINVAL"


def test_setpipe_sz_above_the_limit_is_eperm_for_an_ordinary_user(door: Door) -> None:
    def enlarge() -> list[str]:
        end = door.ok("pipe").results["read"]
        return [door.call("fcntl", end, "F_SETPIPE_SZ", size).errno for size in (1 << 20, (1 << 20) + 1)]

    assert door.spawn(enlarge, uid=NOBODY).result() == ["", "EPERM"]


def test_a_socket_has_no_pipe_size(door: Door, fds: Descriptors) -> None:
    assert door.call("fcntl", fds.sockets()[0], "F_GETPIPE_SZ").errno == "EBADF"


def test_fionread_counts_what_can_be_read(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    assert door.ok("ioctl", read, "FIONREAD").results == {"value": 0}
    door.ok("write", write, b"x" * 5000)
    assert door.ok("ioctl", write, "FIONREAD").results == {"value": 5000}
    one, other = fds.sockets()
    door.ok("write", one, b"four")
    assert door.ok("ioctl", other, "FIONREAD").results == {"value": 4}


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        *(("lseek", (0, whence)) for whence in ("SEEK_SET", "SEEK_CUR", "SEEK_END")),
        *(("pread64", (1, 0)), ("pwrite64", (b"x", 0))),
    ],
)
def test_pipes_and_sockets_have_no_offset(door: Door, fds: Descriptors, call: str, arguments: tuple) -> None:
    read, write = fds.pipe()
    for fd in (write if call == "pwrite64" else read, *fds.sockets()):
        assert door.call(call, fd, *arguments).errno == "ESPIPE"


# --- numbers


def test_a_new_number_is_the_lowest_that_is_free(door: Door, fds: Descriptors) -> None:
    numbers = [fd for _ in range(3) for fd in fds.pipe()]
    assert numbers == sorted(numbers)
    fds.close(numbers[3], numbers[1])
    assert [fds.call("dup", numbers[0]) for _ in range(2)] == [numbers[1], numbers[3]]


def test_dup2_closes_what_the_number_was(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe()
    other_read, other_write = fds.pipe()
    assert door.ok("dup2", write, other_write).ret == other_write
    assert door.ok("read", other_read, 1).data == b""
    door.ok("write", other_write, b"through the first")
    assert door.ok("read", read, 100).data == b"through the first"


def test_dup2_onto_itself_changes_nothing(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe("O_CLOEXEC")
    assert door.ok("dup2", read, read).ret == read
    assert door.ok("fcntl", read, "F_GETFD").ret == 1


def test_a_duplicate_is_not_close_on_exec_unless_asked(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe("O_CLOEXEC")
    assert door.ok("fcntl", fds.call("dup", read), "F_GETFD").ret == 0
    assert door.ok("fcntl", door.ok("dup2", read, write).ret, "F_GETFD").ret == 0
    assert door.ok("fcntl", door.ok("dup3", read, write, "O_CLOEXEC").ret, "F_GETFD").ret == 1
    assert door.ok("fcntl", fds.call("fcntl", read, "F_DUPFD", 0), "F_GETFD").ret == 0
    assert door.ok("fcntl", fds.call("fcntl", read, "F_DUPFD_CLOEXEC", 0), "F_GETFD").ret == 1


def test_setfd_sets_and_clears_close_on_exec_of_one_number(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    other = fds.call("dup", read)
    door.ok("fcntl", read, "F_SETFD", "FD_CLOEXEC")
    assert [door.ok("fcntl", fd, "F_GETFD").ret for fd in (read, other)] == [1, 0]
    door.ok("fcntl", read, "F_SETFD", 0)
    assert door.ok("fcntl", read, "F_GETFD").ret == 0


def test_f_dupfd_gives_the_lowest_free_number_from_its_argument(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    assert [fds.call("fcntl", read, "F_DUPFD", 200) for _ in range(2)] == [200, 201]


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        *(("read", (1,)), ("write", (b"x",)), ("close", ()), ("lseek", (0,)), ("ioctl", ("FIONREAD",))),
        *(("pread64", (1, 0)), ("pwrite64", (b"x", 0)), ("dup", ()), ("dup2", (700,)), ("dup3", (700,))),
        *(("fcntl", (command,)) for command in ("F_DUPFD", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_GETPIPE_SZ")),
    ],
)
@pytest.mark.parametrize("fd", [-1, 1000, 1 << 30])
def test_a_number_that_is_not_open_is_ebadf(door: Door, fd: int, call: str, arguments: tuple) -> None:
    assert door.call(call, fd, *arguments).errno == "EBADF"


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        ("dup3", ("itself",), "EINVAL"),
        ("dup3", (700, "O_NONBLOCK"), "EINVAL"),
        ("dup2", (-1,), "EBADF"),
        ("dup3", (-1,), "EBADF"),
        ("dup2", (1 << 30,), "EBADF"),
        ("fcntl", ("F_DUPFD", -1), "EINVAL"),
        ("fcntl", ("F_DUPFD", 1 << 30), "EINVAL"),
        ("fcntl", (9999,), "EINVAL"),
        ("ioctl", (0x12345678,), "ENOTTY"),
    ],
)
def test_a_wrong_argument_has_its_errno(door: Door, fds: Descriptors, call: str, arguments: tuple, name: str) -> None:
    read, _ = fds.pipe()
    assert door.call(call, read, *(read if argument == "itself" else argument for argument in arguments)).errno == name


def test_a_closed_number_is_ebadf_the_second_time(door: Door, fds: Descriptors) -> None:
    read, _ = fds.pipe()
    fds.close(read)
    assert door.call("close", read).errno == "EBADF"


@pytest.mark.parametrize("limit", [100, 1024, 1500])
def test_a_process_has_as_many_numbers_as_its_soft_limit_says(door: Door, limit: int) -> None:
    def use_all() -> list[object]:
        door.call("dup", 999)  # opens the session
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        read = door.ok("pipe").results["read"]
        while not (result := door.call("dup", read)).errno:
            highest = result.ret
        found = [
            result.errno,
            highest,
            door.ok("dup2", read, limit - 1).ret,
            door.call("dup2", read, limit).errno,
            door.call("dup3", read, limit, "O_CLOEXEC").errno,
            door.call("fcntl", read, "F_DUPFD", limit - 1).errno,
            door.call("fcntl", read, "F_DUPFD", limit).errno,
            door.call("pipe").errno,
        ]
        # The limit is what it is at each call, and what is open beyond it stays.
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 2, 4096))
        found += [door.ok("fcntl", read, "F_DUPFD", limit).ret, door.ok("dup2", read, limit + 1).ret]
        resource.setrlimit(resource.RLIMIT_NOFILE, (90, 4096))
        found += [door.ok("dup2", limit + 1, 80).ret, door.call("dup2", read, 90).errno, door.ok("close", limit).ret]
        found += [door.ok("fcntl", limit + 1, "F_GETFD").ret, door.call("dup", read).errno]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 2, 4096))  # the session may need it
        return found

    assert door.spawn(use_all).result() == [
        *("EMFILE", limit - 1, limit - 1, "EBADF", "EBADF", "EMFILE", "EINVAL", "EMFILE"),
        *(limit, limit + 1),
        *(80, "EBADF", 0, 0, "EMFILE"),
    ]


def test_a_child_has_its_parents_descriptors_and_closes_only_its_own(door: Door, fds: Descriptors) -> None:
    read, write = fds.pipe("O_NONBLOCK")

    def use() -> int:
        door.ok("write", write, b"from the child")
        return door.ok("close", read).ret

    assert door.spawn(use).result() == 0
    assert door.ok("read", read, 100).data == b"from the child"
