"""A Hugging Face hub on 127.0.0.1 that serves a folder: the API routes that huggingface_hub calls for a snapshot."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"


@dataclass
class Hub:
    """One repository with one commit. asked: every request, as `METHOD path`. num_bytes: bytes of content sent."""

    repository: str
    folder: Path
    address: str = ""
    asked: list[str] = field(default_factory=list)
    num_bytes: int = 0

    def files(self) -> dict[str, Path]:
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    def gets(self) -> list[str]:
        """The files whose content was sent."""
        prefix = f"GET /{self.repository}/resolve/{COMMIT}/"
        return [line.removeprefix(prefix) for line in self.asked if line.startswith(prefix)]


@contextmanager
def serve(repository: str, folder: Path) -> Iterator[Hub]:
    """Answers until the end of the block."""
    hub = Hub(repository, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if found := re.fullmatch(rf"/api/models/{repository}(?:/revision/(?P<revision>.+))?", path):
                if found["revision"] in (None, "main", "refs/pr/32", COMMIT):
                    return self._send(json.dumps(_model_info(hub)).encode(), {"Content-Type": "application/json"})
            elif re.fullmatch(rf"/api/models/{repository}/tree/(main|{COMMIT})(/.*)?", path):
                return self._send(json.dumps(_tree(hub)).encode(), {"Content-Type": "application/json"})
            elif found := re.fullmatch(rf"/{repository}/resolve/(main|{COMMIT})/(?P<file>.+)", path):
                if file := hub.files().get(found["file"]):
                    content = file.read_bytes()
                    etag = f'"{hashlib.sha256(content).hexdigest()}"'
                    return self._send(content, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})
                return self._send(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, 404)
            code = "RevisionNotFound" if repository in path else "RepoNotFound"
            return self._send(b"", {"X-Error-Code": code}, 404)

        def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
            if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
                first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
                headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
                content, status = content[first : last + 1], 206
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                hub.num_bytes += len(content)
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _model_info(hub: Hub) -> dict[str, object]:
    siblings = [{"rfilename": name} for name in hub.files()]
    return {"_id": "0" * 24, "id": hub.repository, "modelId": hub.repository, "sha": COMMIT, "private": False,
            "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}  # fmt: skip


def _tree(hub: Hub) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}
        for name, path in hub.files().items()
    ]
