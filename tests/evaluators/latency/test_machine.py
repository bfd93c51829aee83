"""One measurement at a time, on a core of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paredown.errors import InputError, ParedownError
from paredown.evaluators import exclusive_slot, pinned

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system cannot pin a thread to a core")
posix = pytest.mark.skipif(sys.platform == "win32", reason="the system has no flock")


@linux
def test_pinning_holds_inside_and_is_undone_after_an_error() -> None:
    before = os.sched_getaffinity(0)
    with pinned() as pinning:
        assert os.sched_getaffinity(0) == {max(before)}
        assert pinning.asked == pinning.got == (max(before),)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError, match="broke"), pinned():
        raise RuntimeError("broke")
    assert os.sched_getaffinity(0) == before


@linux
def test_several_cores() -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    with pinned(cores) as pinning:
        assert pinning.got == cores


@linux
def test_new_threads_are_pinned_too() -> None:
    seen: list[set[int]] = []
    with pinned() as pinning:
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
    assert seen == [set(pinning.got)]


@linux
@pytest.mark.parametrize("cores", [100_000, (), -1])
def test_a_core_that_is_not_ours_is_refused(cores: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot pin to core .* this process may use"), pinned(cores):
        pass


def test_where_the_system_cannot_pin_that_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pinned(3) as pinning:
        assert (pinning.asked, pinning.got) == ((3,), ())


HOLDER = """
import sys
from pathlib import Path
from paredown.evaluators import exclusive_slot
with exclusive_slot("cpu", folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path, repository: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(repository / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@posix
def test_the_slot_keeps_another_process_out_until_it_ends(tmp_path: Path, repository: Path) -> None:
    with _holder(tmp_path, repository) as process:
        with (
            pytest.raises(ParedownError, match=r"measured latency on 'cpu' for more than 0.1 s \(lock .*cpu.lock\)"),
            exclusive_slot("cpu", timeout_s=0.1, folder=tmp_path),
        ):
            pass
        with exclusive_slot("another", timeout_s=0.0, folder=tmp_path):
            pass
        process.kill()  # and however it ends: the kernel takes the lock back
        process.wait()
        with exclusive_slot("cpu", timeout_s=5.0, folder=tmp_path) as path:
            assert path.parent == tmp_path


@posix
def test_the_slot_keeps_another_thread_out(tmp_path: Path) -> None:
    inside: list[str] = []

    def other() -> None:
        with exclusive_slot("cpu", folder=tmp_path):
            inside.append("other")

    with exclusive_slot("cpu", folder=tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive()
        inside.append("first")
    thread.join()
    assert inside == ["first", "other"]


@posix
def test_the_slot_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broke"), exclusive_slot(folder=tmp_path):
        raise RuntimeError("broke")
    with exclusive_slot(timeout_s=0.0, folder=tmp_path):
        pass


@posix
def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.touch()
    (tmp_path / "paredown-latency-cpu.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), exclusive_slot("cpu", folder=tmp_path):
        pass


@pytest.mark.parametrize("device", ["../cpu", "a/b", "", "a b"])
def test_a_device_that_would_leave_the_folder_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="a device's name must be letters"), exclusive_slot(device):
        pass
