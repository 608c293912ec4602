"""A hub of this machine: repositories of files that huggingface_hub fetches over HTTP."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class Hub:
    """Serves ``{"owner/name/file": path}`` at one revision.

    asked: method, name and Range of each request. break_after: bytes after which the next answer is cut off, once.
    """

    def __init__(self, files: dict[str, Path], revision: str) -> None:
        self.files, self.revision = files, revision
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_after: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(head=True)

            def do_GET(self) -> None:
                self.answer(head=False)

            def answer(self, head: bool) -> None:
                name = self.path.strip("/").replace(f"/resolve/{hub.revision}", "")
                hub.asked.append((self.command, name, self.headers.get("Range")))
                if name not in hub.files:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.end_headers()
                    return
                data = hub.files[name].read_bytes()
                start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
                self.send_response(206 if self.headers.get("Range") else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", hub.revision)
                self.end_headers()
                if head:
                    return
                end, hub.break_after = hub.break_after or len(data), None
                self.wfile.write(data[start:end])

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def connect(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Let huggingface_hub of this process fetch from here, into an empty cache."""
        from huggingface_hub import constants

        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, here)
        patch.setattr(constants, "ENDPOINT", here)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is cut off within a chunk is asked for again
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
