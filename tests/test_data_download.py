"""Downloads against a server of our own: the next mirror is tried, and a file appears whole or not at all."""

import contextlib
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from leadline.data.datasets.mnist import MNIST
from leadline.data.published import Download
from leadline.data.split import PartSizes
from leadline.errors import DataError


@dataclass
class Server:
    """What the server has, and what it was asked for."""

    address: str
    content: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    heard: threading.Event = field(default_factory=threading.Event)  # set when nobody waits for an answer any more


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = self.path.strip("/").partition("/")
            state.asked.append(self.path)
            content = state.content.get(name, b"")
            if kind == "gone":
                self.send_error(404)
                return
            self.send_response(200)
            if kind != "endless":
                self.send_header("Content-Length", str(len(content) + (kind == "silent")))
            self.end_headers()
            if kind == "endless":
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(bytes(2**16))
            if kind == "cut":
                content = content[: len(content) // 2]
            self.wfile.write(content[::-1] if kind == "wrong" else content)
            if kind == "silent":
                state.heard.wait(30)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state = Server(f"http://127.0.0.1:{running.server_port}")
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        state.heard.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def offer(server: Server, monkeypatch: pytest.MonkeyPatch) -> "Offer":
    return Offer(server, monkeypatch)


@dataclass
class Offer:
    """Puts a small MNIST on the server and where MNIST is downloaded from."""

    server: Server
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *mirrors: str) -> None:
        """Offer every file at each of the mirrors: good, gone, cut, wrong or dead."""
        bases = ["http://127.0.0.1:9" if mirror == "dead" else f"{self.server.address}/{mirror}" for mirror in mirrors]
        items = []
        for part, count in (("train", 50), ("t10k", 20)):
            for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
                name = f"{part}-{kind}-ubyte.gz"
                content = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(
                    count * (784 if len(shape) == 3 else 1)
                )
                packed = gzip.compress(content, mtime=0)
                self.server.content[name] = packed
                items.append(
                    Download(
                        f"MNIST/raw/{name}",
                        hashlib.sha256(packed).hexdigest(),
                        len(packed),
                        tuple(f"{base}/{name}" for base in bases),
                    )
                )
        self.monkeypatch.setattr(MNIST, "parts", PartSizes(50, None, 20))
        self.monkeypatch.setattr(MNIST, "downloads", tuple(items))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


NAMES = [
    f"MNIST/raw/{part}-ubyte.gz"
    for part in ("t10k-images-idx3", "t10k-labels-idx1", "train-images-idx3", "train-labels-idx1")
]


@pytest.mark.parametrize("first", ["good", "gone", "cut", "wrong", "dead"])
def test_the_next_mirror_helps_out(tmp_path: Path, server: Server, offer: Offer, first: str) -> None:
    offer(first, "good")
    assert [str(path.relative_to(tmp_path)) for path in MNIST().fetch(tmp_path)] == NAMES
    assert everything(tmp_path) == NAMES
    assert all((tmp_path / name).read_bytes() == server.content[Path(name).name] for name in NAMES)
    good = [path for path in server.asked if path.startswith("/good/")]
    assert len(good) == 4 and len(server.asked) == (4 if first in ("good", "dead") else 8)


def test_reading_downloads_what_is_missing_and_no_more(tmp_path: Path, server: Server, offer: Offer) -> None:
    offer("good")
    arrays = MNIST().read(tmp_path)
    assert arrays.train[0].shape == (50, 1, 28, 28) and len(server.asked) == 4
    (tmp_path / NAMES[1]).unlink()
    MNIST().read(tmp_path)
    assert server.asked[4:] == ["/good/t10k-labels-idx1-ubyte.gz"]
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(DataError, match="no such file"):
        MNIST().read(tmp_path, download=False)
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("mirror", "problem"),
    [
        ("gone", "HTTP status 404"),
        ("cut", "connection lost during the download"),
        ("wrong", "checksum differs from the published one"),
        ("dead", "connection failed"),
        ("silent", "no answer in 0.2 s"),
        ("endless", "more than the published {size:,} bytes"),
    ],
)
def test_when_no_mirror_has_it_one_line_names_them_all(
    tmp_path: Path, offer: Offer, mirror: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mirror == "silent":
        monkeypatch.setattr("leadline.data.published.SILENCE_SECONDS", 0.2)
    offer(mirror, "gone")
    with pytest.raises(DataError) as caught:
        MNIST().fetch(tmp_path)
    message = str(caught.value)
    (first, *_) = MNIST.downloads
    assert message == (
        f"mnist: {first.name} could not be downloaded from {first.mirrors[0]} ({problem.format(size=first.size)}),"
        f" {first.mirrors[1]} (HTTP status 404);"
        f" try again later, or place the file at {tmp_path / first.path}"
    )
    assert everything(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, offer: Offer) -> None:
    offer("good")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"file/MNIST/raw: cannot be created: Not a directory; choose another --data-dir$"
    ):
        MNIST().fetch(tmp_path / "file")


def test_a_folder_that_cannot_be_written(tmp_path: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    offer("good")
    monkeypatch.setattr(pooch, "retrieve", full)
    with pytest.raises(
        DataError, match=r"ubyte.gz: cannot be written: No space left on device; choose another --data-dir$"
    ):
        MNIST().fetch(tmp_path)
