"""A web server on this machine that serves the files of a folder, with the faults that a test asks for."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """What the server does, and the ``Range`` header (or None) of each request that it got.

    ``cuts``: after how many bytes each of the next answers ends; ``ranges``: whether parts are sent; ``tags``: whether
    answers have an ETag; ``statuses``: of the next answers; ``redirect``: where every request is sent on to;
    ``hold``: after how many bytes answers stand still until the client has gone.
    """

    folder: Path
    address: str = ""
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    hold: int | None = None
    requests: list[str | None] = field(default_factory=list)

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
            state.requests.append(asked)
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
            if asked and state.ranges and self.headers.get("If-Range", tag) == tag:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
                status = 206 if start < size else 416
            self.send_response(status)
            if state.tags:
                self.send_header("ETag", tag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            body = b"" if status == 416 else body[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.hold is not None:
                self.wfile.write(body[: state.hold])
                self.wfile.flush()
                while state.hold is not None:
                    time.sleep(0.01)
                return
            self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)
            self.close_connection = True

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
