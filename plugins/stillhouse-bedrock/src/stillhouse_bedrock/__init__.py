"""Amazon Bedrock as a backend of Stillhouse."""

from __future__ import annotations

from stillhouse_bedrock.credentials import Credentials
from stillhouse_bedrock.llm import BedrockLLM

__all__ = ["BedrockLLM", "Credentials"]
