"""Telling a dead process from a living one, and never taking one for the other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from leadline.store import WorkerId

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are judged on POSIX only")


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def test_an_owner_is_written_and_read() -> None:
    owner = WorkerId.current()
    assert owner.pid == os.getpid()
    assert WorkerId.parse(str(owner)) == owner
    assert owner == WorkerId.of(os.getpid())
    assert len(str(owner)) < 255


@pytest.mark.parametrize("text", ["", "host", "host:1", "host:1:", ":1:2", "host:x:2", "host:-1:2"])
def test_anything_else_is_no_owner(text: str) -> None:
    assert WorkerId.parse(text) is None


def test_this_process_lives() -> None:
    assert not WorkerId.current().is_dead()


def test_a_process_lives_until_it_ends(process: "subprocess.Popen[bytes]") -> None:
    owner = WorkerId.of(process.pid)
    assert not owner.is_dead()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_dead() or not os.path.exists("/proc/self/stat")  # noqa: PTH110
    process.communicate()
    assert owner.is_dead()


@pytest.mark.skipif(sys.platform != "linux", reason="start times are read from /proc")
def test_a_later_process_of_the_same_number_is_another() -> None:
    assert replace(WorkerId.current(), start="1").is_dead()


def test_a_process_of_elsewhere_is_never_judged(process: "subprocess.Popen[bytes]") -> None:
    owner = WorkerId.of(process.pid)
    process.kill()
    process.communicate()
    assert owner.is_dead()
    assert not replace(owner, host="elsewhere").is_dead()
    # A container of the same name has a process namespace of its own.
    assert not replace(owner, host=f"{owner.host}1").is_dead()


def test_a_process_of_another_user_lives() -> None:
    first = WorkerId.of(1)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        assert not first.is_dead()
    finally:
        os.seteuid(user)
