"""A web server on this machine that serves the files of a folder, with the faults that a test asks for."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path


@dataclass
class FileServer:
    """What the server does, the ``Range`` header (or None) of each GET that it got, and the ``sent`` bytes of files.

    ``cuts``: after how many bytes each of the next answers ends; ``ranges``: whether parts are sent; ``tags``: whether
    answers have an ETag; ``statuses``: of the next answers; ``redirect``: where every request is sent on to;
    ``hold``: after how many bytes answers stand still until the client has gone; ``drops``: every so many-th GET ends
    after half of its bytes.
    """

    folder: Path
    address: str = ""
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    hold: int | None = None
    drops: int | None = None
    requests: list[str | None] = field(default_factory=list)
    sent: int = 0
    numbers: count = field(default_factory=partial(count, 1))

    def url(self, name):
        """Return the address of a file of the folder with its hash."""
        return f"{self.address}/{name}#sha256={hashlib.sha256((self.folder / name).read_bytes()).hexdigest()}"


@contextmanager
def serving(folder):
    """Yield the `FileServer` of ``folder``, which serves until the block ends."""
    state = FileServer(Path(folder))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked = self.headers.get("Range")
            number = 0
            if self.command == "GET":
                state.requests.append(asked)
                number = next(state.numbers)
            file = state.folder / self.path.lstrip("/").replace("%20", " ").partition("?")[0]
            status = state.statuses.pop(0) if state.statuses else 302 if state.redirect else 200
            if status == 200 and not file.is_file():
                status = 404
            if status != 200:
                self.send_response(status)
                if state.redirect:
                    self.send_header("Location", state.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = file.read_bytes()
            tag, start, size = f'"{hashlib.sha256(body).hexdigest()[:16]}"', 0, len(body)
            end = size
            if asked and state.ranges and self.headers.get("If-Range", tag) == tag:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", asked).groups()
                start, end = int(first), min(size, int(last or size) + 1)
                status = 206 if start < size else 416
            self.send_response(status)
            if state.tags:
                self.send_header("ETag", tag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            body = b"" if status == 416 else body[start:end]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if state.hold is not None:
                self.wfile.write(body[: state.hold])
                self.wfile.flush()
                while state.hold is not None:
                    time.sleep(0.01)
                return
            if state.drops and number % state.drops == 0:
                body = body[: len(body) // 2]
            body = body[: state.cuts.pop(0)] if state.cuts else body
            state.sent += len(body)
            self.wfile.write(body)
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            """Say nothing of clients that went away."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.hold = None
        server.shutdown()
        server.server_close()
