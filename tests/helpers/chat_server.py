"""A small server of the chat-completions protocol on this machine: the model behind it is a function, HTTP is real."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Messages = list[dict[str, str]]


class Failing(Exception):
    """Raised by a model's function: the server answers with this status, body and headers."""

    def __init__(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


class ChatServer(ThreadingHTTPServer):
    """What it was asked is in `requests`; how many at a time at the most, in `busiest`."""

    daemon_threads = True

    def __init__(self, model: Callable[[Messages], str | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.keys.add(self.headers["Authorization"])
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            if self.path != "/v1/chat/completions":
                raise Failing(404, "no such page")
            message = {"role": "assistant", "content": self.server.model(request["messages"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": request["model"]}
            status, body, headers = 200, json.dumps(answer | {"choices": [choice]}), {}
        except Failing as failing:
            status, body, headers = failing.status, failing.body, failing.headers
        finally:
            with self.server.lock:
                self.server.busy -= 1
        data = body.encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(model: Callable[[Messages], str | None]) -> Iterator[ChatServer]:
    server = ChatServer(model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
