"""What the authors of the backends that ask a server would write."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from broken_http import BREAKS, GoodHTTP

from stillhouse.http import HTTPLLM
from stillhouse.testing import HTTPConformance


class Suite(HTTPConformance):
    backend: ClassVar[type[HTTPLLM]]

    def make_at(self, base_url: str, api_key: str) -> HTTPLLM:
        return self.backend(model="m", base_url=base_url, api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        content = body["chat"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        return {"texts": [text] * body["n"], "tokens": len(text.split())}


# They wait much and compute little: several processes take their share each.
_share, _shares = (int(part) for part in os.environ["BROKEN_SHARE"].split("/"))

for _backend in [GoodHTTP, *[*BREAKS][:: int(os.environ["BROKEN_EVERY"])]][_share::_shares]:
    globals()[f"Test{_backend.__name__}"] = type(f"Test{_backend.__name__}", (Suite,), {"backend": _backend})
