"""The address space of a process against a plain model of pages: what is free, what overlaps, what is lowest."""

import errno
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_msg import CONSTANTS
from native_shm import shmctl, shmget

from synosfs.errors import SynosError, WouldBlock
from synosfs.host.abi import SHM_REMAP
from synosfs.ipc.sysv_shm import Segment
from synosfs.process.address_space import BASE, AddressSpace

PAGE = 4096


@pytest.fixture(scope="module")
def segments(ipc_namespace: None) -> Iterator[dict[int, Segment]]:
    """A segment of 1, 2 and 3 pages each."""
    made = {pages: Segment(shmget(0, pages * PAGE - 7, 0o600)) for pages in (1, 2, 3)}
    yield made
    for segment in made.values():
        shmctl(segment.shmid, CONSTANTS["IPC_RMID"])


_PAGES = st.integers(1, 3)
_PLACES = st.integers(0, 11)
_STEPS = st.one_of(
    st.tuples(st.just("attach"), _PAGES),
    st.tuples(st.just("attach at"), _PAGES, _PLACES, st.booleans()),
    st.tuples(st.just("detach"), _PLACES),
)


@given(steps=st.lists(_STEPS, max_size=30))
def test_places_are_those_of_a_model_of_pages(segments: dict[int, Segment], steps: list[tuple]) -> None:
    counted: list[int] = []
    space = AddressSpace(counted.append)
    model: dict[int, int] = {}  # first page to number of pages

    def overlapped(place: int, pages: int) -> list[int]:
        return [at for at, length in model.items() if at < place + pages and place < at + length]

    try:
        for step in steps:
            match step:
                case ("attach", pages):
                    place = next(place for place in range(200) if not overlapped(place, pages))
                    assert space.attach(segments[pages], 0, 0) == BASE + place * PAGE
                    model[place] = pages
                case ("attach at", pages, place, remap):
                    there = overlapped(place, pages)
                    flags = SHM_REMAP if remap else 0
                    address = BASE + place * PAGE
                    if there and not remap:
                        with pytest.raises(SynosError) as caught:
                            space.attach(segments[pages], address, flags)
                        assert caught.value.errno == errno.EINVAL
                        continue
                    assert space.attach(segments[pages], address, flags) == address
                    for at in there:
                        del model[at]
                    model[place] = pages
                case ("detach", place):
                    if place in model:
                        space.detach(BASE + place * PAGE)
                        del model[place]
                    else:
                        with pytest.raises(SynosError):
                            space.detach(BASE + place * PAGE)
            found = [((a.address - BASE) // PAGE, (a.end - a.address) // PAGE) for a in space]
            assert found == sorted(model.items())
    finally:
        for _ in space.close():
            pass
    assert len(space) == 0
    assert len(counted) % 2 == 0  # each attach has had its detach
    assert all(segment.status().nattch == 0 for segment in segments.values())


@pytest.fixture
def segment(ipc_namespace: None) -> Iterator[Segment]:
    """Two pages that nobody has touched, but for the end of the last."""
    segment = Segment(shmget(0, 2 * PAGE - 7, 0o600))
    yield segment
    shmctl(segment.shmid, CONSTANTS["IPC_RMID"])


def test_what_is_not_in_memory_would_block_and_is_then(segment: Segment) -> None:
    space = AddressSpace(lambda _: None)
    address = space.attach(segment, 0, 0)
    for copy in (space.reading(address + 1, PAGE), space.writing(address + PAGE - 1, b"ab")):
        with pytest.raises(WouldBlock):
            copy.nowait()
    assert space.writing(address + PAGE - 1, b"ab").blocking() == 2
    assert space.reading(address, 2 * PAGE).nowait() == bytes(PAGE - 1) + b"ab" + bytes(PAGE - 1)
    assert space.writing(address, b"c").nowait() == 1
    assert space.reading(address, 1).blocking() == b"c"
    for _ in space.close():
        pass


def test_a_copy_goes_over_attachments_that_follow_each_other(segments: dict[int, Segment]) -> None:
    space = AddressSpace(lambda _: None)
    first, second = (space.attach(segments[pages], 0, 0) for pages in (1, 2))
    assert second == first + PAGE
    data = bytes(range(1, 251)) * 40
    assert space.writing(first + 5, data).blocking() == len(data)
    found = space.reading(first + 5, 4 * PAGE).nowait()
    inside = PAGE - 7 - 5  # behind its segment a page holds zeros
    assert found[:inside] == data[:inside]
    assert found[inside : inside + 7] == bytes(7)
    assert found[inside + 7 : len(data)] == data[inside + 7 :]
    assert len(found) == 3 * PAGE - 5
    for _ in space.close():
        pass


def test_what_a_thread_copies_stays_attached_until_the_copy_is_done(segment: Segment) -> None:
    memory = segment.attach()
    with memory._kept():
        memory.detach()
        assert segment.status().nattch == 1
    assert segment.status().nattch == 0
    memory.detach()
    with pytest.raises(SynosError) as caught:
        memory.read_blocking(0, 1)
    assert caught.value.errno == errno.EFAULT
