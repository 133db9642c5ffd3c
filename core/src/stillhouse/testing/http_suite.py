"""`HTTPConformance`: all rules for backends that ask a server."""

from __future__ import annotations

from stillhouse.testing.rules.http_answers import HTTPAnswerRules
from stillhouse.testing.rules.http_retries import HTTPRetryRules
from stillhouse.testing.rules.http_streams import HTTPStreamRules
from stillhouse.testing.rules.http_wire import HTTPWireRules
from stillhouse.testing.suite import LLMConformance

__all__ = ["HTTPConformance"]


class HTTPConformance(HTTPWireRules, HTTPStreamRules, HTTPAnswerRules, HTTPRetryRules, LLMConformance):
    """The rules of the contract, and those on requests, as tests against a server that the kit starts.

    Subclass it in a test module, in a class whose name begins with `Test`; give it `make_at`, an LLM
    that asks the kit's server, and `respond`, the API's answer to a request; and run pytest.
    """
