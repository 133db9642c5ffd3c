"""What the authors of the backends that ask a server would write."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from broken_http import BREAKS, KEEPING, InPieces, Streaming

from stillhouse.http import HTTPLLM
from stillhouse.testing import HTTPConformance


class Suite(HTTPConformance):
    backend: ClassVar[type[HTTPLLM]]

    def make_at(self, base_url: str, api_key: str) -> HTTPLLM:
        return self.backend(model="m", base_url=base_url, api_key=api_key)

    # What every instance hands in is known to all: the kit makes one for each request.
    jobs: ClassVar[list[Any]] = []

    def respond(self, path: str, body: Any) -> Any:
        if issubclass(self.backend, Streaming):
            return self.backend.written(self.answer_to(body))
        if self.requests_per_input == 1:
            return self.answer_to(body)
        if body is not None:
            self.jobs.append([body, 0])
            return {"job": len(self.jobs) - 1}
        job = self.jobs[int(path.rpartition("/")[2])]
        job[1] += 1
        return {"state": "running"} if job[1] == 1 else {"state": "done", **self.answer_to(job[0])}

    def respond_streamed(self, path: str, body: Any) -> Any:
        if not (issubclass(self.backend, InPieces) and body and body.get("stream")):
            return None
        return self.backend.sent(self.answer_to(body))

    def answer_to(self, body: Any) -> Any:
        content = body["chat"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        return {"texts": [text] * body["n"], "tokens": len(text.split())}


# They wait much and compute little: several processes take their share each.
_share, _shares = (int(part) for part in os.environ["BROKEN_SHARE"].split("/"))

for _backend in [*KEEPING, *[*BREAKS][:: int(os.environ["BROKEN_EVERY"])]][_share::_shares]:
    _members = {"backend": _backend, **KEEPING.get(_backend, {})}
    globals()[f"Test{_backend.__name__}"] = type(f"Test{_backend.__name__}", (Suite,), _members)
