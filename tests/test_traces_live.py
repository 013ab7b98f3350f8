"""One trace over two real processes, received as an OpenTelemetry collector receives it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from live import LiveMesh, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.full]

CANARY = "a canary in a coal mine"
TRACE = "0af7651916cd43dd8448eb211c80319c"
ECHO = """
from monai_node.agents import Agent

agent = Agent("echo")


@agent.skill(examples=["Say it again", "Repeat this", "Echo my words"])
def echo(text: str) -> str:
    '''Says the same again.'''
    return text
"""


class Collector:
    """By the service that sent it, the name of each span, its trace, its own id and its parent's."""

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self.spans: dict[str, list[tuple[str, str, str, str]]] = {}

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            told = self.spans.setdefault(attributes["service.name"], [])
            for scope in resource.scope_spans:
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    told.append((span.name, *ids))


@contextmanager
def collecting() -> Generator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name there

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_gateway_and_provider_tell_of_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with LiveMesh(tmp_path) as mesh:
            mesh.open_gateway("gateway", "--embedder", "gguf", "--planner", "rules")
            mesh.serve("echo", str(tmp_path / "echo.py")).wait_ready()
            wait_until(lambda: mesh.get("/ready").status_code == 200, 10, "the gateway is not ready")
            traceparent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            body = {"messages": [{"role": "user", "content": f"Repeat this: {CANARY}"}]}
            url = f"{mesh.url}/v1/chat/completions"
            answer = httpx.post(url, json=body, headers=traceparent, timeout=60, trust_env=False)
            assert answer.status_code == 200
            for name in ("gateway", "echo"):  # what is left is sent at the end
                assert mesh.nodes[name].terminate() == 0
    gateway = {name: ids for name, *ids in collector.spans["monai-gateway"]}
    (task,) = collector.spans["monai-provider"]
    run, attempt = gateway["invoke_workflow mesh"], gateway["invoke_agent echo"]
    assert {run[0], attempt[0], gateway["plan"][0], task[1]} == {TRACE}
    assert run[2] == "b7ad6b7169203331"
    assert (attempt[2], task[0], task[3]) == (run[1], "invoke_agent echo", attempt[1])
    assert CANARY.encode() not in collector.raw
