"""What a stream of requests makes of bytes, for tests of framing."""

from collections.abc import Iterable

from synosfs.syscall_gate.codecs import PAUSE, Record
from synosfs.syscall_gate.codecs import RequestStream as PausingStream


class RequestStream(PausingStream):
    """Without its pauses."""

    def feed(self, piece: bytes) -> list[Record]:
        return [record for record in super().feed(piece) if record is not PAUSE]

    def finish(self) -> list[Record]:
        return [record for record in super().finish() if record is not PAUSE]


def records(*pieces: bytes) -> list[Record]:
    """What a session's stream makes of these writes and the close after them."""
    stream = RequestStream()
    return [record for piece in pieces for record in stream.feed(piece)] + stream.finish()


def shown(found: list[Record]) -> list[tuple]:
    """Records as values that can be compared."""
    return [(r.notation, r.requests, r.batch, r.error and (r.error.errno, r.error.message)) for r in found]


def calls(found: Iterable[Record]) -> list[str | int]:
    found = list(found)
    assert [r.error for r in found] == [None] * len(found)
    return [request.call for record in found for request in record.requests]


def error_of(*pieces: bytes) -> tuple[int, str]:
    (record,) = records(*pieces)
    assert record.error is not None
    assert record.requests == []
    return record.error.errno, record.error.message


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in pieces of these sizes, and what is left."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in [*pieces, data] if piece]
