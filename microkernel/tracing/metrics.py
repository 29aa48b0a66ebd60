"""A kernel's counters at an address that Prometheus scrapes: one page, on the loopback."""

from __future__ import annotations

import threading
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from microkernel.errors import KernelError
from microkernel.tracing.counters import prometheus_text

__all__ = ["MetricsServer"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PATIENCE_SECONDS = 10  # with a client that does not say what it wants


class MetricsServer:
    """Serves ``/metrics`` of one kernel on the loopback interface until it is closed."""

    def __init__(self, kernel: Any, port: int = 0) -> None:
        """Port 0 takes a free one, see ``port``. Does not keep the kernel alive."""
        watched = weakref.ref(kernel)

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE_SECONDS
            server_version = "srds"
            sys_version = ""

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "only /metrics is here")
                    return
                kernel = watched()
                if kernel is None:
                    self.send_error(503, "the kernel is gone")
                    return
                page = prometheus_text(kernel.counters()).encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        try:
            self._server = _BoundedServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            raise KernelError(
                f"metrics cannot be served on port {port}: {error}",
                what=str(port),
                expected="a free port of this machine",
                remedy="choose another, or 0 for any",
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            daemon=True,
            name="srds-metrics",
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _BoundedServer(ThreadingHTTPServer):
    """Answers a few requests at a time; more wait to be accepted."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16
    most = 8

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(self.most)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()
