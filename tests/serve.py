"""A web server on this host for tests; it keeps what was asked for, and refuses /private."""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format, *args):
        pass

    def send_head(self):
        self.asked.append(f"{self.command} {self.path}")
        if not self.path.startswith("/private"):
            return super().send_head()
        self.send_error(403)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(its address, the requests so far: "GET /name?query")."""
    asked: list[str] = []
    kind = type("Handler", (_Quiet,), {"asked": asked})
    handler = functools.partial(kind, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
