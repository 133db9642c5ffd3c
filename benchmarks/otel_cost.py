"""What `stillhouse-otel` costs: a whole `stillhouse generate` on an API backend that reports to a collector.

    python benchmarks/otel_cost.py [--rows 20000] [--rounds 5] [--ratio 0.01]

The runs are commands of their own, with the telemetry switched off and on, in turn; the collector is another
process on this machine, which answers and keeps nothing. Budget: at most 1.05 of the CPU without it, with the
default share of rows that get a span, without what is imported once. It needs `stillhouse-openai`
and `stillhouse-otel[otlp]`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bulk_run import Reading, generate, on_stub, spent
from measure import alternate, machine, median
from stub import served

COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        size = int(self.headers["content-length"])
        self.rfile.read(size)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
        print(self.path, size, flush=True)

    def log_message(self, *arguments):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

LOADS = {"without": "import stillhouse.http.transport.session"}
OTLP = "opentelemetry.exporter.otlp.proto.http"
LOADS["with"] = LOADS["without"] + "".join(
    f", {module}"
    for module in (
        "opentelemetry.sdk.trace", "opentelemetry.sdk.metrics.export", f"{OTLP}.trace_exporter",
        f"{OTLP}.metric_exporter",
    )
)  # fmt: skip


@contextlib.contextmanager
def collecting(log: Path) -> Iterator[str]:
    """Yield the address of a collector; what it gets is listed in a file."""
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=stream)
        try:
            while not log.read_text().strip():
                pass
            yield f"http://127.0.0.1:{log.read_text().split()[0]}"
        finally:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=0.01, help="share of the rows that get a span")
    arguments = parser.parse_args()
    rows = arguments.rows
    print(machine())
    with tempfile.TemporaryDirectory() as temporary, served() as url:
        folder = Path(temporary)
        log = folder / "collected"
        with collecting(log) as collector:
            config = folder / "config" / "stillhouse" / "config.toml"
            config.parent.mkdir(parents=True)
            config.write_text(f"[hooks.otel]\nratio = {arguments.ratio}\n", encoding="utf-8")
            os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
            # What is imported once, whatever the number of rows, is taken off.
            start = {name: median([spent([sys.executable, "-c", code]).cpu for _ in range(3)])
                     for name, code in LOADS.items()}  # fmt: skip

            def run(name: str) -> float:
                os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
                if name == "with":
                    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
                before = log.read_text().count("/v1/traces")
                reading: Reading = generate(folder, rows, *on_stub(url))
                reported = log.read_text().count("/v1/traces") - before
                assert bool(reported) == (name == "with"), f"{name}: {reported} exports of spans"
                return reading.cpu - start[name]

            names = ("without", "with")
            readings = alternate({name: lambda name=name: run(name) for name in names}, arguments.rounds)  # type: ignore[misc]
            print(f"\nCPU a row of {rows:,} rows on an API backend (medians of {arguments.rounds}; us)")
            for name in names:
                print(f"  {name:8} telemetry  {median(readings[name]) / rows * 1e6:8.0f}")
            pairs = [own / base for own, base in zip(readings["with"], readings["without"], strict=True)]
            print(f"importing OpenTelemetry, once: {start['with'] - start['without']:.2f} s")
            print(f"with against without: {median(pairs):.3f} (budget 1.05); ratio {arguments.ratio}")


if __name__ == "__main__":
    main()
