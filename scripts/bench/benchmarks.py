"""The benchmarks, as data: `BENCHMARKS` is the list that `run` goes through, one row a name on the command line.

A benchmark takes the `Bench` and returns the lines that it adds to the table. Each states its goal beside its row,
and measures its peer, or the state that it is compared with, in turns with ours.
"""

from __future__ import annotations

from calls import batch_getpid, batch_messages, echo, one_call, with_blocked, with_queues
from data import file_gate, sendfile, splice
from objects import QUEUES, SEGMENTS, SETS, listing, making, queue_file
from orphaned import orphans
from owners import owning
from processes import among_many, spawning
from rows import Benchmark
from throughput import fifo, shm_posix, shm_sysv
from waits import waiting

_LISTING = "<= 1.5 x tmpfs + 100 us each"
_MAKING = "<= 1.2 x with 10"

BENCHMARKS = (
    Benchmark("one-call", one_call, "<= 1.2 x the C server", 1.2),
    Benchmark("echo", echo, "<= 1/4 of ipcmk -Q", 0.25),
    Benchmark("batch-getpid", batch_getpid, ">= 200,000 calls/s", 200_000),
    Benchmark("batch-msg", batch_messages, ">= 100,000 calls/s", 100_000),
    Benchmark("queues", with_queues, "<= 1.2 x with 10", 1.2),
    Benchmark("blocked", with_blocked, "<= 1.2 x with none", 1.2),
    Benchmark("queue-file", queue_file, "<= 1.2 x the C server", 1.2),
    Benchmark("fifo", fifo, ">= 0.97 x native", 0.97),
    Benchmark("shm-posix", shm_posix, ">= 0.97 x native", 0.97),
    Benchmark("shm-sysv", shm_sysv, ">= 1 GB/s or 0.5 x tmpfs", 0.5),
    Benchmark("spawn", spawning, "<= 1.5 x subprocess.run", 1.5),
    Benchmark("owning", owning, "<= 1.3 x not owned", 1.3),
    Benchmark("processes", among_many, _MAKING.replace("10", "50"), 1.2),
    Benchmark("file-gate", file_gate, ">= 0.5 x shared memory", 0.5),
    Benchmark("splice", splice, "<= 1.0 x cat | cat", 1.0),
    Benchmark("sendfile", sendfile, "<= 1.1 x cp", 1.1),
    Benchmark("queue-ls", listing(QUEUES), _LISTING, 1.5),
    Benchmark("set-ls", listing(SETS), _LISTING, 1.5),
    Benchmark("segment-ls", listing(SEGMENTS), _LISTING, 1.5),
    Benchmark("queue-make", making(QUEUES), _MAKING, 1.2),
    Benchmark("set-make", making(SETS), _MAKING, 1.2),
    Benchmark("segment-make", making(SEGMENTS), _MAKING, 1.2),
    Benchmark("orphans", orphans, "<= 1,000 ms", 1000),
    Benchmark("waiting", waiting, "<= 100 ms", 100),
)
