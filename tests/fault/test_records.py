"""Malformed and huge records: an answer that says what is wrong, and a gate that works on, in all sessions."""

import itertools
import json
import mmap
import os
import random
import re
import time
from collections.abc import Iterator

import msgspec
import pytest
from children import Child, wait_until
from doors import MountDoor, write
from mounts import Mount

MIB = 1 << 20


class Session:
    """One open file of the gate, and no help at all with what goes through it."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._fd = os.open(mount.gate, os.O_RDWR)

    def reopen(self) -> None:
        self.close()
        self.__init__(self._mount)

    def write(self, data: bytes, piece: int = 0) -> list[str]:
        """Write it, in pieces if asked; the errno of each write(2) that failed."""
        pieces = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else [data]
        return [error for error in (write(self._fd, each) for each in pieces) if error]

    def read(self) -> bytes:
        reply = b""
        while chunk := os.read(self._fd, MIB):
            reply += chunk
        return reply

    def works(self) -> None:
        """Each notation is answered, and nothing else is."""
        pid = os.getpid()
        for request, answer in (
            (b"getpid\n", b"%d\n" % pid),
            (b'{"call":"getpid"}\n', b'{"ret":%d}\n' % pid),
            (msgspec.msgpack.encode({"call": "getpid"}), msgspec.msgpack.encode({"ret": pid})),
        ):
            assert self.write(request) == []
            assert self.read() == answer

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def session(mount: Mount) -> Iterator[Session]:
    session, other = Session(mount), Session(mount)
    yield session
    other.works()
    session.close()
    other.close()


def refusals(reply: bytes) -> list[tuple[str, str]]:
    """The errno and the message of each reply, all of which have to be refusals, in any notation."""
    found = []
    while reply:
        if reply[:1] in (b"{", b"["):
            line, _, reply = reply.partition(b"\n")
            answers = json.loads(line)
        elif reply[0] >= 0x80:
            answers, reply = msgspec.msgpack.decode(reply), b""
        else:
            line, _, reply = reply.partition(b"\n")
            ret, errno, message = line.decode().split(" ", 2)
            answers = {"ret": int(ret), "errno": errno, "message": message}
        for answer in answers if isinstance(answers, list) else [answers]:
            assert answer["ret"] == -1
            found.append((answer["errno"], answer["message"]))
    return found


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


MALFORMED = {
    "no call": b"no_such_call 1 2\n",
    "bytes that are no text": bytes(range(0xA0, 0xC0)) + b"\n",
    "zeros": b"\0" * 100 + b"\n",
    "an open quote": b'msgsnd 0 1 "hello\n',
    "a bad escape": b'msgsnd 0 1 "\\xzz"\n',
    "too many arguments": b"getpid" + b" 1" * 3_000 + b"\n",
    "too few arguments": b"msgsnd\n",
    "a number too large": b"msgrcv " + b"9" * 5000 + b" 1\n",
    "deep parentheses": b"getpid" + b"(" * 50_000 + b"\n",
    "a very long word": b"x" * 500_000 + b"\n",
    "half of an object": b'{"call":"getpid"\n',
    "no object": b"[1, 2, 3]\n",
    "an empty batch": b"[]\n",
    "an unknown field": b'{"call":"getpid","arg":[]}\n',
    "call is a number that is none": b'{"call":1e400}\n',
    "deep arrays": b'{"call":"getpid","args":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n",
    "deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"\n",
    "a string that is not UTF-8": b'{"call":"\xff\xfe"}\n',
    "bad base64": b'{"call":"msgsnd","args":[0,1],"data64":"*"}\n',
    "MessagePack: an empty map": pack({}),
    "MessagePack: no map of ours": pack({"colour": "red"}),
    "MessagePack: an unused code": b"\x81\xa4call\xc1",
    "MessagePack: deep arrays": b"\x82\xa4call\xa6getpid\xa4args" + b"\x91" * 50_000 + b"\xc0",
    "MessagePack: a key that is no string": b"\x81\x01\x02",
    "MessagePack: an extension": b"\x82\xa4call\xa6getpid\xa4args\x91\xd4\x01\x00",
}


@pytest.mark.parametrize("record", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("piece", [0, 4096], ids=["whole", "in pieces"])
def test_a_malformed_record_is_einval_with_a_reason_and_the_session_works_on(
    session: Session, record: bytes, piece: int
) -> None:
    session.write(record, piece)
    for errno, message in refusals(session.read()):
        assert errno in ("EINVAL", "ENOSYS")
        assert 5 < len(message) < 400
        assert message.isprintable()
    session.works()


@pytest.mark.parametrize("record", [b"no_such_call\n", b"getpid 1\n", b'msgsnd 0 1 "open\n'])
def test_a_single_text_record_that_is_malformed_fails_the_write(session: Session, record: bytes) -> None:
    failed = session.write(record)
    assert failed == [errno for errno, _ in refusals(session.read())]
    session.works()


@pytest.mark.parametrize("seed", range(8))
def test_noise_hurts_nobody(session: Session, seed: int) -> None:
    noise = random.Random(seed)
    alphabet = [bytes(range(256)), b'{}[]",:0123456789 \n', b"\x81\x91\xa4call\xc6\xdc\xdf\xff", b'msgrcv|0x()="\\\n '][
        seed % 4
    ]
    piece = noise.choice([0, 1000, 4096])
    written = bytes(noise.choices(alphabet, k=noise.randrange(1, 10_000)))
    # A number at the beginning of a line may be a call's: as the first of two it is none that there is.
    session.write(re.sub(rb"(?m)^(\s*)(?=\d)", rb"\g<1>9999", written), piece)
    session.read()
    session.reopen()
    session.works()


# --- truncated


@pytest.mark.parametrize("notation", ["json", "msgpack"])
def test_a_record_that_is_cut_off_is_answered_when_the_reply_is_asked_for(session: Session, notation: str) -> None:
    request = {"call": "msgsnd", "args": [0, 1, "hello"]}
    record = json.dumps(request).encode() if notation == "json" else pack(request)
    for length in range(1, len(record)):
        assert session.write(record[:length]) == []
        ((errno, message),) = refusals(session.read())
        assert errno == "EINVAL"
        assert "unfinished" in message
    session.works()


def test_a_record_that_is_cut_off_and_never_asked_about_is_nothing(session: Session, mount: Mount) -> None:
    for part in (
        b'{"call":"get',
        b"\x82\xa4call",
        b"[" * 100,
        b"\xdd\xff\xff\xff\xff",
        b"\x81\xa4data\xc6\xff\xff\xff\xff",
    ):
        short = Session(mount)
        short.write(part)
        short.close()
    session.works()


# --- huge


def record_of(notation: str, size: int, queue: int) -> bytes:
    """A msgsnd with this many bytes of data."""
    data = "x" * size
    if notation == "text":
        return f'msgsnd {queue} 1 "{data}"\n'.encode()
    request = {"call": "msgsnd", "args": [queue, 1, data if notation == "json" else data.encode()]}
    return json.dumps(request).encode() + b"\n" if notation == "json" else pack(request)


@pytest.mark.parametrize(
    ("notation", "piece"),
    [
        ("text", 0),
        ("json", 0),
        ("msgpack", 0),
        ("text", 4096),
        ("json", 4096),
        ("msgpack", 4096),
        ("json", 100_001),  # text ends with any piece that is not a full buffer
        ("msgpack", 100_001),
    ],
)
@pytest.mark.parametrize(("size", "errno"), [(MIB, "EINVAL"), (MIB + 1, "EMSGSIZE"), (5 * MIB, "EMSGSIZE")])
def test_a_megabyte_passes_the_gate_and_more_is_emsgsize(
    session: Session, queue: int, notation: str, piece: int, size: int, errno: str
) -> None:
    if size > 2 * MIB:
        piece *= 16
    # The kernel splits it, so no write fails: what fails is written again by many a client.
    assert session.write(record_of(notation, size, queue), piece) == []
    # What passes is too large for the host's queue, and that is the host's own word: EINVAL.
    assert told(session) == errno
    session.works()


def told(session: Session) -> str:
    """The errno of the only answer."""
    ((errno, _),) = refusals(session.read())
    return errno


@pytest.mark.parametrize("notation", ["text", "json", "msgpack"])
def test_buffers_that_are_not_aligned_are_as_good_as_others(session: Session, queue: int, notation: str) -> None:
    for size in (MIB, MIB + 1):
        record = record_of(notation, size, queue)
        with mmap.mmap(-1, 4 * MIB) as memory:
            for shift in (1, 511, 4095):
                memory[shift : shift + len(record)] = record
                with memoryview(memory)[shift : shift + len(record)] as view:
                    assert os.write(session._fd, view) == len(record)
                assert told(session) == ("EINVAL" if size == MIB else "EMSGSIZE")
    session.works()


def test_a_failing_request_that_has_the_last_piece_of_a_split_write_to_itself_is_run_once(session: Session) -> None:
    data = b"#".ljust(MIB - 1, b"-") + b"\n" + b"no_such_call\n"
    with mmap.mmap(-1, 2 * MIB) as memory:
        memory[: len(data)] = data
        with memoryview(memory)[: len(data)] as view:
            assert os.write(session._fd, view) == len(data)
    assert told(session) == "ENOSYS"
    # The next write is a write of its own again.
    assert session.write(b"no_such_call\n") == ["ENOSYS"]
    assert told(session) == "ENOSYS"
    session.works()


def test_a_batch_of_more_than_65536_requests_is_emsgsize(session: Session) -> None:
    assert session.write(pack([{"call": "getpid"}] * ((1 << 16) + 1))) == []
    ((errno, message),) = refusals(session.read())
    assert errno == "EMSGSIZE"
    assert "65536" in message
    session.works()


def test_a_session_whose_replies_nobody_reads_is_refused_and_works_when_they_are_read(session: Session) -> None:
    batch = pack([{"call": "uname"}] * 20_000)
    errors: list[str] = []
    while not errors:
        errors = session.write(batch)
    assert errors == ["ENOBUFS"]
    assert len(session.read()) > 16 * MIB
    session.works()


def test_many_small_requests_in_one_write_are_all_answered(session: Session) -> None:
    assert session.write(b"getpid\n" * 10_000) == []
    assert session.read() == b"%d\n" % os.getpid() * 10_000


def test_the_replies_to_one_write_hold_16_mib_at_most(session: Session, full_queue: int) -> None:
    look = b"msgrcv %d 8192 0 IPC_NOWAIT|MSG_COPY\n" % full_queue
    assert session.write(look * 4000) == []
    reply = session.read()
    copies, refused = reply.count(b"8192 mtype=1\n"), reply.count(b"-1 ENOBUFS not run: ")
    assert copies + refused == 4000
    assert refused > 0
    assert 16 * MIB < len(reply) < 17 * MIB
    session.works()


def start_long_write(gate: MountDoor, line: bytes) -> Child:
    """A child in the midst of 180,000 requests; it returns what they were answered, in order."""

    def write_and_read() -> list[bytes]:
        session = os.open(gate.mount.gate, os.O_RDWR)
        assert write(session, line * 180_000) == ""
        with open(session, "rb") as replies:
            answers = replies.read().splitlines()
        assert len(answers) == 180_000
        return [next(group) for _, group in itertools.groupby(answers)]

    before = int(gate.mount.stats()["total_calls"])
    child = gate.spawn(write_and_read)
    wait_until(lambda: int(gate.mount.stats()["total_calls"]) > before + 100, "some requests are answered")
    return child


@pytest.mark.parametrize("line", [b"getpid\n", b"gtpid\n"])
def test_the_writer_of_many_records_that_is_killed_is_gone_and_the_rest_is_not_run(
    gate: MountDoor, mount: Mount, line: bytes
) -> None:
    before = int(mount.stats()["total_calls"])
    start_long_write(gate, line).kill()
    assert int(mount.stats()["total_calls"]) < before + 180_000


def test_a_large_batch_that_is_killed_ends_where_it_is(gate: MountDoor, mount: Mount) -> None:
    # Each name is wrong in a way of its own, and a suggestion is looked for: the slowest requests that there are.
    batch = pack([{"call": f"gtpid{number}"} for number in range(1 << 16)])
    before = int(mount.stats()["total_calls"])
    child = gate.spawn(lambda: write(os.open(mount.gate, os.O_WRONLY), batch))
    wait_until(lambda: int(mount.stats()["total_calls"]) > before + 100, "some requests are answered")
    child.kill()
    assert int(mount.stats()["total_calls"]) < before + (1 << 16)


def test_a_signal_ends_a_write_of_many_records_and_each_is_answered(gate: MountDoor) -> None:
    child = start_long_write(gate, b"getpid\n")
    child.interrupt()
    answered, canceled = child.result()
    assert answered == b"%d" % child.pid
    assert canceled.startswith(b"-1 ECANCELED not run: ")


def test_while_one_session_sends_a_huge_record_in_pieces_others_are_answered(
    session: Session, gate: MountDoor, mount: Mount
) -> None:
    slow = Session(mount)
    record = record_of("msgpack", MIB, 0)
    for at in range(0, len(record), 65536):
        assert slow.write(record[at : at + 65536]) == []
        assert gate.ok("getpid").ret == os.getpid()
    ((errno, _),) = refusals(slow.read())
    assert errno == "EINVAL"
    slow.close()


@pytest.mark.parametrize(
    ("line", "size"), [(b"#\n", MIB), (b"getpid\n", MIB // 4), (b"gtpid\n", MIB // 64), (b'{"cal":1}\n', MIB // 16)]
)
def test_many_small_records_in_one_write_keep_nobody_waiting(
    gate: MountDoor, mount: Mount, line: bytes, size: int
) -> None:
    sender = gate.spawn(lambda: write(os.open(mount.gate, os.O_WRONLY), line * (size // len(line))))
    seconds = []
    for _ in range(20):
        began = time.monotonic()
        assert gate.ok("getpid").ret == os.getpid()
        seconds.append(time.monotonic() - began)
    assert sorted(seconds)[10] < 0.5
    assert sender.result() == ""
