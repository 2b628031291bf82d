"""Rights are lent for the length of a body, one at a time, and are back however it ends."""

import os
import subprocess
import sys

import pytest

_PROGRAM = """
import os
from pathlib import Path
from synosfs.host import rights
from synosfs.host.credentials import Credentials

def status():
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("Uid", "Gid", "Groups", "CapEff"))]

before = status()
nobody, other = Credentials(65534, 65534, (), 0), Credentials(65533, 65533, (7,), 0)
try:
    with rights.acting_as(nobody):
        assert os.geteuid() == os.getuid() or "65534" in status()[0]
        with rights.acting_as_daemon():
            assert status() == before
        lent = status()
        try:
            with rights.acting_as({inner}):
                print("nested")
        except AssertionError as error:
            assert status() == lent
            print(error)
        raise KeyError("whatever the body raises")
except KeyError:
    pass
assert status() == before
with rights.acting_as(other):
    pass
assert status() == before
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be others")
@pytest.mark.parametrize("inner", ["other", "nobody", "rights.OWN"])
def test_loans_do_not_nest_and_are_given_back(inner: str) -> None:
    command = [sys.executable, "-c", _PROGRAM.format(inner=inner)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("uid 65534's rights are lent already\n", "")
