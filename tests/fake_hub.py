"""What the hubs of the tests have in common: a server on this machine that says little and answers from memory."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], hub: object) -> Iterator[str]:
    """Answer with ``handler``, which finds ``hub`` as its attribute; gives the server's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class QuietHandler(BaseHTTPRequestHandler):
    """Whole answers in one connection, and no log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def refuse(self, status: int, code: str, with_body: bool) -> None:
        """As the hub refuses: the reason stands in the headers."""
        self.send_bytes(status, b"{}", with_body, {"X-Error-Code": code, "X-Error-Message": code})

    def send_bytes(self, status: int, body: bytes, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        """Send headers and, unless only they were asked for, the body."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)
