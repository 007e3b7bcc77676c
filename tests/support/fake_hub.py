"""A hub on the loopback interface that holds one data set in the shape of C4: enough of its interface to stream it."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DATASET = "allenai/c4"
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


FILES = {"README.md": CARD} | {
    f"en/c4-train.0000{shard}-of-00003.json.gz": _shard(DOCUMENTS[shard::3]) for shard in range(3)
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    data_status = 200  # of the data files; anything else is an error

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self._with_body = with_body
        if re.fullmatch(rf"/api/datasets/{DATASET}(/revision/\w+)?", path):
            siblings = [{"rfilename": name} for name in FILES]
            return self._send(json.dumps({"id": DATASET, "sha": COMMIT, "tags": [], "siblings": siblings}).encode())
        if tree := re.fullmatch(rf"/api/datasets/{DATASET}/tree/\w+/?(.*)", path):
            return self._send(json.dumps(_entries(tree[1])).encode())
        file = re.fullmatch(rf"/datasets/{DATASET}/resolve/\w+/(.*)", path)
        if file and file[1] in FILES:
            return self._send_file(file[1])
        return self._send(b"{}", 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def _send_file(self, name: str) -> None:
        body = FILES[name]
        headers = {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name.endswith(".gz") and self.data_status != 200:
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


def _entries(folder: str) -> list[dict[str, object]]:
    prefix = folder + "/" if folder else ""
    files = [name for name in FILES if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
    entries: list[dict[str, object]] = [
        {"type": "file", "path": name, "size": len(FILES[name]), "oid": "a" * 40} for name in files
    ]
    return entries if folder else [*entries, {"type": "directory", "path": "en", "oid": "b" * 40}]


@contextmanager
def fake_hub(data_status: int = 200) -> Iterator[str]:
    """Serve the data set while the block runs; yields what `HF_ENDPOINT` must be."""
    handler = type("Handler", (_Handler,), {"data_status": data_status})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
