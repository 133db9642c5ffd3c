"""A collector on this machine: it takes OTLP over HTTP, decodes it, and keeps everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes_of(item: Any) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in item.attributes}


class Receiver:
    """What came in.

    Attributes:
        url: its base address.
        bodies: of all requests, as they came.
        came: is set when something came in.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[tuple[str, bytes]] = []
        self.came = threading.Event()

    @property
    def raw(self) -> bytes:
        return b"".join(body for _, body in self.bodies)

    @property
    def resources(self) -> list[dict[str, Any]]:
        return [attributes_of(part.resource) for part in self._parts("/v1/traces")]

    @property
    def spans(self) -> list[Any]:
        return [
            span for part in self._parts("/v1/traces") for scope in part.scope_spans for span in scope.spans
        ]

    @property
    def rows(self) -> list[Any]:
        return [span for span in self.spans if not span.name.startswith("invoke_workflow")]

    @property
    def runs(self) -> list[Any]:
        return [span for span in self.spans if span.name.startswith("invoke_workflow")]

    @property
    def points(self) -> list[tuple[str, dict[str, Any], Any]]:
        """The name, the attributes and the data point of each series, as they were exported last."""
        latest = {}
        for part in self._parts("/v1/metrics"):
            for scope in part.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.histogram.data_points:
                        attributes = attributes_of(point)
                        latest[metric.name, tuple(sorted(attributes.items()))] = (
                            metric.name,
                            attributes,
                            point,
                        )
        return [*latest.values()]

    def _parts(self, path: str) -> Iterator[Any]:
        for place, body in [*self.bodies]:
            if place == path == "/v1/traces":
                yield from ExportTraceServiceRequest.FromString(body).resource_spans
            elif place == path:
                yield from ExportMetricsServiceRequest.FromString(body).resource_metrics


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.bodies.append((self.path, body))
            receiver.came.set()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
