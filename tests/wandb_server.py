"""A server that takes what `wandb sync` uploads, and remembers it: as much of W&B's GraphQL as that asks for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Server:
    """What it was told."""

    address: str
    operations: list[tuple[str, Any]] = field(default_factory=list)  #: names and variables, in order
    uploads: dict[str, bytes] = field(default_factory=dict)  #: contents by the last part of their names

    def told(self, operation: str) -> list[Any]:
        """The variables of all operations of this name."""
        return [variables for name, variables in self.operations if name == operation]

    def answer(self, operation: str, variables: Any) -> Any:
        given = (variables or {}).get("input") or variables or {}
        to = {"uploadUrl": f"{self.address}/up/manifest", "uploadHeaders": []}
        manifest = {"id": "m", "file": {"id": "f", "name": "m", "displayName": "m"} | to}
        match operation:
            case "UpsertBucket":
                project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
                run = {"id": "b", "name": "r", "displayName": "r", "config": "{}", "historyLineCount": 0}
                return {"upsertBucket": {"bucket": run | {"project": project}, "inserted": True}}
            case "CreateArtifact":  # its id is its digest: as on W&B, equal contents are one version
                sequence = {"id": "s", "latestArtifact": None}
                found = {"id": given["digest"], "state": "PENDING", "artifactSequence": sequence}
                return {"createArtifact": {"artifact": found}}
            case "CreateArtifactManifest":
                return {"createArtifactManifest": {"artifactManifest": manifest}}
            case "CreateArtifactFiles":
                edges = [{"node": self._file(each["name"])} for each in given["artifactFiles"]]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
            case "CommitArtifact" | "UseArtifact":
                return {operation[0].lower() + operation[1:]: {"artifact": {"id": "a", "digest": "d"}}}
            case "CreateRunFiles":
                files = [self._file(name) for name in given["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return {"serverInfo": {"features": []}}

    def _file(self, name: str) -> dict[str, Any]:
        where = {"uploadUrl": f"{self.address}/up/{name}", "uploadHeaders": [], "storagePath": name}
        return {"id": name, "name": name, "displayName": name, "artifact": {"id": "a"}} | where


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.respond({})

        def do_PUT(self) -> None:
            server.uploads[self.path.rpartition("/")[2]] = self.content()
            self.respond({})

        def do_POST(self) -> None:
            content = self.content()
            if not self.path.endswith("graphql"):
                return self.respond({})
            asked = json.loads(content)
            server.operations.append((asked["operationName"], asked.get("variables")))
            return self.respond({"data": server.answer(*server.operations[-1])})

        def content(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def respond(self, answer: Any) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.handle_error = lambda *_: None  # a client that hangs up
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
