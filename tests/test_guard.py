"""The check that every mount of these tests runs with: a call that may sleep, made in the main thread, is found."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import os, threading
from synosfs.host import file, guard
guard.enforce()
def attempt():
    try:
        {call}
        return "made"
    except guard.SlowCall:
        return "found"
    except OSError:
        return "made"
answers = [attempt()]
thread = threading.Thread(target=lambda: answers.append(attempt()))
thread.start()
thread.join()
print(*answers)
"""


@pytest.mark.parametrize(
    ("call", "in_main"),
    [
        ('file.open_blocking("/nowhere", 0)', "found"),
        ("file.read_blocking(99, 1)", "found"),
        ('os.open("/tmp/nowhere", os.O_RDONLY)', "found"),
        ('open("/dev/shm/nowhere")', "found"),
        ('os.listdir("/dev/shm")', "found"),
        ('os.chmod("/tmp/nowhere", 0)', "found"),
        ('os.open("/proc/self/environ", os.O_RDONLY)', "found"),
        ('os.open("/dev/shm/nowhere", os.O_RDONLY | os.O_NONBLOCK)', "made"),
        ('os.open("/dev/shm/nowhere", os.O_PATH)', "made"),
        ('os.open("/proc/self/status", os.O_RDONLY)', "made"),
    ],
)
@pytest.mark.parametrize("on", [True, False])
def test_a_call_that_may_sleep_is_found_in_the_main_thread_alone(call: str, in_main: str, *, on: bool) -> None:
    environment = {**os.environ, "SYNOSFS_GUARD": "1" if on else ""}
    command = [sys.executable, "-c", _PROGRAM.format(call=call)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [in_main if on else "made", "made"]
