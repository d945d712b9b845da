"""Files are written whole or not at all, and only files are replaced."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
from support.files import FULL, NULL, make_device

from rnncore.files import is_stream, replacing


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path):
    (path := tmp_path / "file").write_bytes(b"old")
    return path


def without_unnamed_files(monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def without_links(monkeypatch):
    def link(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


each_way = pytest.mark.parametrize(
    "way", [lambda monkeypatch: None, without_unnamed_files, without_links], ids=["", "no unnamed files", "no links"]
)


# ---- what stands at the path ----------------------------------------------------------------------------------------


@each_way
def test_a_new_file_has_the_usual_permissions(tmp_path, monkeypatch, way):
    way(monkeypatch)
    write(tmp_path / "one")
    (tmp_path / "other").write_bytes(b"new")
    one, other = (tmp_path / name for name in ("one", "other"))
    assert one.read_bytes() == b"new"
    assert one.stat().st_mode == other.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


@each_way
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_a_replaced_file_keeps_its_permissions(path, monkeypatch, way, mode):
    way(monkeypatch)
    path.chmod(mode)
    with replacing(path) as file:
        file.write(b"new")
        private = os.fstat(file.fileno()).st_mode & 0o777
    assert private == 0o600  # nobody else reads it while it is being written
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o7777 == mode
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_replaced_file_keeps_its_owner(path):
    os.chown(path, 1234, 2345)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (1234, 2345, b"new")


@pytest.mark.parametrize(("mode", "wanted"), [(0o660, 0o600), (0o664, 0o644), (0o604, 0o604)])
def test_another_group_gets_no_rights(path, monkeypatch, mode, wanted):
    """Where the group cannot be kept."""

    def fchown(*_):
        raise PermissionError

    path.chmod(mode)
    monkeypatch.setattr(os, "fchown", fchown)
    write(path)
    assert path.stat().st_mode & 0o7777 == wanted


@each_way
def test_symbolic_links_stay(tmp_path, path, monkeypatch, way):
    way(monkeypatch)
    (tmp_path / "folder").mkdir()
    for name, target in {"old": "../file", "new": "none", "twice": "old"}.items():
        (link := tmp_path / "folder" / name).symlink_to(target)
        write(link, name.encode())
        assert link.is_symlink()
        assert link.read_bytes() == name.encode()
    assert path.read_bytes() == b"twice"
    assert sorted(os.listdir(tmp_path / "folder")) == ["new", "none", "old", "twice"]
    (loop := tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop") as caught:
        write(loop)
    assert caught.value.errno == errno.ELOOP
    assert loop.is_symlink()


def test_a_fifo_is_written_into(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    content = bytes(range(256)) * 1000  # more than a pipe holds
    write(fifo, content)
    reader.join()
    assert received == [content]
    assert is_stream(fifo)
    assert os.listdir(tmp_path) == ["fifo"]


def test_nothing_goes_into_a_fifo_after_an_error(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match="half way"), replacing(fifo) as file:
        file.write(b"half")
        raise ValueError("half way")  # opening the FIFO would wait for a reader


def test_devices_stay(tmp_path):
    null, full = make_device(tmp_path / "null", NULL), make_device(tmp_path / "full", FULL)
    before = [os.stat(device) for device in (null, full)]
    write(null)
    with pytest.raises(OSError, match=f"No space left on device: '{full}'"):
        write(full)
    assert all(map(os.path.samestat, before, [os.stat(device) for device in (null, full)]))
    assert sorted(os.listdir(tmp_path)) == ["full", "null"]


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_errors_name_the_path(tmp_path, path):
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "none" / "file")
    assert caught.value.filename == str(tmp_path / "none" / "file")
    assert caught.value.filename2 is None
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path)
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path), None)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [path.name]


def test_the_longest_name(tmp_path):
    write(tmp_path / ("n" * 255))
    assert os.listdir(tmp_path) == ["n" * 255]


@each_way
@pytest.mark.parametrize("error", [OSError("no space"), ValueError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("place", ["body", "fsync", "replace"])
def test_an_error_leaves_the_old_file(path, monkeypatch, way, error, place):
    def fail(*_):
        raise error

    way(monkeypatch)
    if place != "body":
        monkeypatch.setattr(os, place, fail)
    with pytest.raises(type(error)) as caught, replacing(path) as file:
        file.write(b"half")
        if place == "body":
            fail()
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


# ---- interrupts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupts():
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_file(path, interrupts):
    finished = False
    with pytest.raises(KeyboardInterrupt) as caught, replacing(path) as file:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        file.write(b"new")
        finished = True
    assert finished
    assert caught.value.__notes__ == [f"{path} was written before the interrupt"]
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupt_and_an_error(path, interrupts):
    with pytest.raises(KeyboardInterrupt) as caught, replacing(path):
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert not hasattr(caught.value, "__notes__")
    assert isinstance(caught.value.__context__, ValueError)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_the_handler_of_the_caller_is_called_once(path):
    calls = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        with replacing(path) as file:
            signal.raise_signal(signal.SIGINT)
            assert not calls
            file.write(b"new")
        assert calls == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        assert len(calls) == 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_ignored_interrupts_stay_ignored(path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with replacing(path) as file:
            signal.raise_signal(signal.SIGINT)
            file.write(b"new")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_files_of_other_threads(path):
    thread = threading.Thread(target=write, args=(path,))
    thread.start()
    thread.join()
    assert path.read_bytes() == b"new"


def test_an_interrupt_ends_the_wait_for_a_reader(tmp_path, interrupts):
    os.mkfifo(tmp_path / "fifo")
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "fifo")
    timer.join()


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name")
def test_a_kill_leaves_nothing(path):
    code = f"""if True:
        import os, signal
        from rnncore.files import replacing
        with replacing({str(path)!r}) as file:
            file.write(bytes(100_000))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run([sys.executable, "-c", code], cwd=path.parent, check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@each_way
def test_the_content_is_on_the_disk_before_the_name_stands_for_it(path, monkeypatch, way):
    way(monkeypatch)
    fsync, replace, events = os.fsync, os.replace, []

    def note_fsync(descriptor):
        fsync(descriptor)
        status = os.fstat(descriptor)
        events.append(("fsync", status.st_ino))
        if stat.S_ISREG(status.st_mode):
            assert status.st_size == 6

    def note_replace(source, target):
        events.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(path, b"longer")
    file = path.stat().st_ino
    assert events[-3:] == [("fsync", file), ("replace", file), ("fsync", path.parent.stat().st_ino)]
