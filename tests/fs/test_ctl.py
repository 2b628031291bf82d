"""``ctl`` as a session: what is true of every family's, whatever its words."""

import json
import os

import pytest
from mounts import Mount


@pytest.mark.parametrize(("family", "create"), [("msgq", "create"), ("sem", "create"), ("shm", "create 0x0 4096")])
def test_a_batch_with_a_wrong_word_is_answered_for_each_and_none_of_it_is_run(
    mount: Mount, family: str, create: str
) -> None:
    word, *args = create.split()
    batch = [{"call": word, "args": args}, {"call": "crate"}]
    before = os.listdir(mount.path / family / "sysv")
    fd = os.open(mount.path / family / "ctl", os.O_RDWR)
    try:
        os.write(fd, json.dumps(batch).encode() + b"\n")
        replies = json.loads(os.read(fd, 4096))
    finally:
        os.close(fd)
    assert [reply["message"] for reply in replies] == ["'crate': no such command; did you mean create?"] * 2
    assert os.listdir(mount.path / family / "sysv") == before
