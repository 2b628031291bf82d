"""The text notation: what a line means, what a reply looks like, and what a wrong line is told."""

import errno
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from synosfs.errors import SynosError, excerpt
from synosfs.syscall_gate.record import Bare, Hexadecimal, Octal, Reply, Request
from synosfs.syscall_gate.text import MAX_NESTING, is_blank, parse, quote, render


def kinds(values: list) -> list:
    """Values with their kind, which equality of Bare and bytes does not tell."""
    return [kinds(v) if isinstance(v, list) else (type(v), bytes(v)) for v in values]


def assert_parses(line: bytes, expected: Request) -> None:
    request = parse(line)
    assert request == expected
    assert kinds(request.args) == kinds(expected.args)


def message_of(line: bytes) -> str:
    with pytest.raises(SynosError) as caught:
        parse(line)
    assert caught.value.errno == errno.EINVAL
    return caught.value.message


# --- lines of words ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"getpid", Request("getpid")),
        (b" \tgetpid \r", Request("getpid")),
        (b"msgget 0x1234 IPC_CREAT|0600", Request("msgget", [Bare(b"0x1234"), Bare(b"IPC_CREAT|0600")])),
        (b'msgsnd 3\t1 "hello, kernel"', Request("msgsnd", [Bare(b"3"), Bare(b"1"), b"hello, kernel"])),
        (b'msgsnd 3 1 ""', Request("msgsnd", [Bare(b"3"), Bare(b"1"), b""])),
        (b"semop 3 0:-1:SEM_UNDO 1:+1", Request("semop", [Bare(b"3"), Bare(b"0:-1:SEM_UNDO"), Bare(b"1:+1")])),
        (b"msgrcv 3 10 timeout=0.5", Request("msgrcv", [Bare(b"3"), Bare(b"10"), Bare(b"timeout=0.5")])),
        (b'execve /bin/sh name="a b" x', Request("execve", [Bare(b"/bin/sh"), Bare(b"x")], {"name": b"a b"})),
        (b"write 1 don't", Request("write", [Bare(b"1"), Bare(b"don't")])),
        (b'write 1 5" 2x="y', Request("write", [Bare(b"1"), Bare(b'5"'), Bare(b'2x="y')])),
        (b"write 1 (hello)", Request("write", [Bare(b"1"), Bare(b"(hello)")])),
        ("write 1 grün".encode(), Request("write", [Bare(b"1"), Bare("grün".encode())])),
        (b"write 1 \xff\x00\x01", Request("write", [Bare(b"1"), Bare(b"\xff\x00\x01")])),
        (b"write 1 # #x", Request("write", [Bare(b"1"), Bare(b"#"), Bare(b"#x")])),
    ],
)
def test_words_are_separated_by_blanks_and_stay_bare_unless_quoted(line: bytes, expected: Request) -> None:
    assert_parses(line, expected)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (rb"\a\b\f\n\r\t\v\e", b"\a\b\f\n\r\t\v\x1b"),
        (rb"\\ \" \'", b"\\ \" '"),
        (rb"\0 \7 \12 \377", b"\0 \7 \n \xff"),
        (rb"\0123 \48 \08", b"\n3 \x048 \x008"),
        (rb"\x41\xfFg", b"A\xffg"),
        (rb"\\e\\\e\\x41", b"\\e\\\x1b\\x41"),
        ("ü\\nü".encode(), "ü\nü".encode()),
        (b"\x80\\0\xff", b"\x80\x00\xff"),
    ],
)
def test_a_quoted_string_has_the_escapes_of_c(written: bytes, meant: bytes) -> None:
    assert_parses(b'f "%b"' % written, Request("f", [meant]))


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (b"29", 29),
        (b"0x1d 1", 29),
        (b"035", 29),
        (b"0", 0),
        (b"29(1)", 29),
        (b"08", "08"),
        (b"9" * 30, "9" * 30),
        (b"\xff", "\\xff"),
    ],
)
def test_a_number_in_place_of_the_name_is_read_in_c_notation(line: bytes, call: str | int) -> None:
    assert parse(line).call == call


# --- the C call ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"getpid()", Request("getpid")),
        (b"getpid( ) ;", Request("getpid")),
        (b"getpid() = 4242", Request("getpid")),
        (
            b"shmget(0x1234, 4096, IPC_CREAT|0600) = 5",
            Request("shmget", [Bare(b"0x1234"), Bare(b"4096"), Bare(b"IPC_CREAT|0600")]),
        ),
        (
            b"  shmget(0x1234,4096,IPC_CREAT | 0600);",
            Request("shmget", [Bare(b"0x1234"), Bare(b"4096"), Bare(b"IPC_CREAT|0600")]),
        ),
        (b"msgget(1, 0) = -1 ENOENT (No such file or directory)", Request("msgget", [Bare(b"1"), Bare(b"0")])),
        (
            b"semop(3, [{0, -1, SEM_UNDO}], 1)",
            Request("semop", [Bare(b"3"), [[Bare(b"0"), Bare(b"-1"), Bare(b"SEM_UNDO")]], Bare(b"1")]),
        ),
        (
            b"semop(3, [{sem_num=0, sem_op = -1, sem_flg=IPC_NOWAIT | SEM_UNDO}], 1)",
            Request("semop", [Bare(b"3"), [[Bare(b"0"), Bare(b"-1"), Bare(b"IPC_NOWAIT|SEM_UNDO")]], Bare(b"1")]),
        ),
        (b'f([], {}, ["a,]", {x="}"}])', Request("f", [[], [], [b"a,]", [b"}"]]])),
        (
            b'msgsnd(3, {1, "he said \\"hi\\""}, 5, 0)',
            Request("msgsnd", [Bare(b"3"), [Bare(b"1"), b'he said "hi"'], Bare(b"5"), Bare(b"0")]),
        ),
        (b'f(NULL, timeout=5, name="a b")', Request("f", [Bare(b"NULL"), Bare(b"timeout=5")], {"name": b"a b"})),
    ],
)
def test_the_c_call_that_strace_prints_means_the_same(line: bytes, expected: Request) -> None:
    assert_parses(line, expected)


# --- errors ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'msgsnd 3 1 "hel', 'unterminated string starting at column 12: "hel'),
        (b'msgsnd 3 1 name="hel', 'unterminated string starting at column 17: "hel'),
        (b'f "abc\\', 'unterminated string starting at column 3: "abc\\'),
        (b'f "', 'unterminated string starting at column 3: "'),
        (b'f "ab\\q"', "bad escape \\q at column 6"),
        (b'f "\\x4g"', "bad escape \\x at column 4"),
        (b'f "\\475"', "bad escape \\475 at column 4"),
        ('f "\\ü"'.encode(), "bad escape \\ü at column 4"),
        (b'f "\\\n"', "bad escape \\\\n at column 4"),
        (b'f "a"b c', "missing blank before b c at column 6"),
        (b'f "a""b"', 'missing blank before "b" at column 6'),
        (b'f x="1" x="2"', "x= is given twice"),
        (b'"getpid"', 'a request begins with the name of a call, not with "getpid" at column 1'),
        (b"", "a request begins with the name of a call, not with the end at column 1"),
        (b"shmget(0x1234, 4096", "missing ) after shmget(0x1234, 4096"),
        (b"shmget(0x1234, ", "missing ) after shmget(0x1234, "),
        (b"shmget(", "missing ) after shmget("),
        (b"semop(3, [{0, -1", "missing } after {0, -1"),
        (b"semop(3, [{0, -1}, ", "missing ] after [{0, -1}, "),
        (b"semop(3, [{0, -1)", "missing , or } before ) at column 17"),
        (b"f(1 2)", "missing , or ) before 2) at column 5"),
        (b"f(1,)", "missing argument before ) at column 5"),
        (b"f(,1)", "missing argument before ,1) at column 3"),
        (b"f(1]", "missing , or ) before ] at column 4"),
        (b"f(A||B)", "missing , or ) before ||B) at column 4"),
        (b"f(1) 2", "nothing but ; or = and a result may follow the ), not 2 at column 6"),
        (b'f("abc"..., 5)', "the string was cut short (strace -s shows more) before ..., 5) at column 8"),
        (b"f(" + b"[" * 99, f"brackets nest too deeply in {'[' * 60}... at column {3 + MAX_NESTING}"),
    ],
)
def test_an_error_names_the_part_and_its_column(line: bytes, message: str) -> None:
    assert message_of(line) == message


def test_an_error_repeats_at_most_sixty_bytes_of_the_line_in_printable_form() -> None:
    assert message_of(b'f "\x1b[31m\n' + b"x" * 5000) == (
        'unterminated string starting at column 3: "\\x1b[31m\\n' + "x" * (60 - 7) + "..."
    )


@given(st.binary())
def test_an_excerpt_is_one_printable_line(data: bytes) -> None:
    assert excerpt(data).isprintable()


NEAR_MISSES = st.text(alphabet='fg09 \t"\\xn=,()[]{}|;#.\n\xff', max_size=40).map(lambda s: s.encode("latin-1"))


@given(st.one_of(st.binary(), *(NEAR_MISSES.map(head.__add__) for head in (b"", b"f(", b'f "'))))
def test_any_line_is_a_request_or_a_readable_error(line: bytes) -> None:
    error = None
    try:
        assert isinstance(parse(line), Request)
    except SynosError as caught:
        error = caught
    assert error is None or (error.errno == errno.EINVAL and error.message.isprintable())


# --- blank lines and comments ---


@pytest.mark.parametrize("line", [b"", b" \t", b"\r", b"# x", b"  #"])
def test_blank_lines_and_comments_are_no_records(line: bytes) -> None:
    assert is_blank(line)


def test_a_line_with_a_word_is_a_record() -> None:
    assert not is_blank(b"  getpid # x")


# --- quoting ---


@given(st.binary())
@example(bytes(range(256)))
@example(b"\x001\x018\x0b9")
def test_any_data_round_trips_through_quote_and_parse(data: bytes) -> None:
    quoted = quote(data).encode("ascii")
    assert parse(b"f " + quoted).args == [data]
    assert parse(b"f x=" + quoted).kwargs == {"x": data}
    assert parse(b"f({" + quoted + b"}, " + quoted + b")").args == [[data], data]


@pytest.mark.parametrize(
    ("data", "limit", "shown"),
    [
        (b"hello\n", None, '"hello\\n"'),
        (b"hello", 5, '"hello"'),
        (b"hello!", 5, '"hello"...'),
        (b"\x01\x012\x7f\xff", None, '"\\1\\0012\\177\\377"'),
        (b'\\"\t\r\v\f\0', None, '"\\\\\\"\\t\\r\\v\\f\\0"'),
        (b"\x01" + b"2", 1, '"\\1"...'),
    ],
)
def test_quote_shows_strings_as_strace_does(data: bytes, limit: int | None, shown: str) -> None:
    assert quote(data, limit) == shown


# --- replies ---


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (Reply(3), b"3\n"),
        (Reply(-7), b"-7\n"),
        (Reply(2**64 - 1), b"18446744073709551615\n"),
        (Reply(0, {"read": 3, "write": 4}), b"0 read=3 write=4\n"),
        (Reply(0, {"values": [1, 2, 3], "none": []}), b"0 values=1,2,3 none=\n"),
        (Reply(0, {"mode": Octal(0o600), "key": Hexadecimal(0x1234)}), b"0 mode=0600 key=0x1234\n"),
        (Reply(0, {"sysname": "Linux", "status": "exited:0"}), b"0 sysname=Linux status=exited:0\n"),
        (Reply(0, {"name": "gr\u00fcn"}), "0 name=grün\n".encode()),
        (Reply(0, {"a": "", "b": "x y", "c": 'q"q', "d": "a\\b"}), b'0 a="" b="x y" c="q\\"q" d="a\\\\b"\n'),
        (Reply(0, {"name": "a\nb\udcff"}), b'0 name="a\\nb\\377"\n'),
        (Reply(13, {"mtype": 1}, b"hello, kernel"), b"13 mtype=1\nhello, kernel\n"),
        (Reply(0, {"mtype": 1}, b""), b"0 mtype=1\n\n"),
        (Reply(4, {}, b"\0\n\xff\n"), b"4\n\0\n\xff\n\n"),
        (Reply(-1, errno=errno.ENOENT, message="no queue has key 0x1234"), b"-1 ENOENT no queue has key 0x1234\n"),
        (Reply(-1, errno=errno.EINVAL, message="two\nlines \udcff"), b"-1 EINVAL two\\nlines \\udcff\n"),
    ],
)
def test_a_reply_is_one_line_and_then_its_data(reply: Reply, lines: bytes) -> None:
    assert render(reply) == lines


@given(st.text())
def test_a_string_result_reads_back_as_a_word(value: str) -> None:
    line = render(Reply(0, {"name": value}))
    assert line.count(b"\n") == 1
    request = parse(re.sub(rb"^0", b"f", line))
    assert [*request.args, *request.kwargs.values()] in ([Bare(b"name=" + value.encode())], [value.encode()])
