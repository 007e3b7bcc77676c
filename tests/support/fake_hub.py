"""A hub on the loopback interface that holds data sets, one in the shape of C4: enough of its interface to stream."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"  # of the tag `v1`
COMMITS = {"main": COMMIT, COMMIT: COMMIT, "v1": OTHER_COMMIT, OTHER_COMMIT: OTHER_COMMIT}
DOCUMENTS = [f"document {number} of the web, which says {number * 7}" for number in range(60)]
CARD = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/c4-train.*.json.gz
---
"""


def _shard(texts: list[str]) -> bytes:
    rows = [{"text": text, "timestamp": "2019-04-22", "url": "http://example.org"} for text in texts]
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


C4 = {"README.md": CARD} | {
    f"en/c4-train.0000{shard}-of-00003.json.gz": _shard(DOCUMENTS[shard::3]) for shard in range(3)
}


def rows(*values: dict[str, object]) -> bytes:
    """A file of JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    data_status = 200  # of the data files; anything else is an error
    repositories: dict[str, dict[str, bytes]]  # the files of each data set

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        self._with_body = with_body
        owner = next((name for name in self.repositories if f"/datasets/{name}" in path), None)
        if owner is None:
            return self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        files = self.repositories[owner]
        if info := re.fullmatch(rf"/api/datasets/{owner}(?:/revision/(.+))?", path):
            commit = COMMITS.get(info[1] or "main")
            if commit is None:
                return self._send(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in files]
            return self._send(json.dumps({"id": owner, "sha": commit, "tags": [], "siblings": siblings}).encode())
        if tree := re.fullmatch(rf"/api/datasets/{owner}/tree/\w+/?(.*)", path):
            return self._send(json.dumps(_entries(files, tree[1])).encode())
        file = re.fullmatch(rf"/datasets/{owner}/resolve/(\w+)/(.*)", path)
        if file and file[2] in files:
            return self._send_file(file[2], files[file[2]], file[1])
        return self._send(b"{}", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": file[1] if file else COMMIT})

    def _send_file(self, name: str, body: bytes, commit: str) -> None:
        headers = {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not name.endswith(".md") and self.data_status != 200:
            return self._send(b"", self.data_status)
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(part[1]), min(int(part[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            return self._send(body[first : last + 1], 206, headers)
        return self._send(body, 200, headers)

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self._with_body:
            self.wfile.write(body)


def _entries(files: dict[str, bytes], folder: str) -> list[dict[str, object]]:
    prefix = folder + "/" if folder else ""
    inside = [name for name in files if name.startswith(prefix)]
    entries: list[dict[str, object]] = [
        {"type": "file", "path": name, "size": len(files[name]), "oid": "a" * 40}
        for name in inside
        if "/" not in name.removeprefix(prefix)
    ]
    below = {prefix + name.removeprefix(prefix).split("/")[0] for name in inside if "/" in name.removeprefix(prefix)}
    return [*entries, *({"type": "directory", "path": name, "oid": "b" * 40} for name in sorted(below))]


@contextmanager
def fake_hub(data_status: int = 200, repositories: dict[str, dict[str, bytes]] | None = None) -> Iterator[str]:
    """Serve data sets (without any, C4) while the block runs; yields what `HF_ENDPOINT` must be."""
    served = {"allenai/c4": C4} if repositories is None else repositories
    handler = type("Handler", (_Handler,), {"data_status": data_status, "repositories": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
