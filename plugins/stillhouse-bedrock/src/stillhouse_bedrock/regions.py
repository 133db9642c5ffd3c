"""Regions of AWS: that of an ARN, and the host of Bedrock in one."""

from __future__ import annotations

import re

from stillhouse import ConfigurationError

__all__ = ["host_of", "region_of_arn"]

_DOMAINS = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
"""The domains of the regions that are set apart, by how their names begin."""


def region_of_arn(model: str) -> str:
    """Return the region in an ARN: nowhere else is there the model. An empty string if it is none."""
    parts = model.split(":")
    return parts[3] if parts[0] == "arn" and len(parts) > 5 else ""


def host_of(region: str) -> str:
    """Return the host that runs models in a region.

    Raises:
        ConfigurationError: it is none.
    """
    if not re.fullmatch(r"[a-z]{2,8}(-[a-z0-9]+)+", region):
        raise ConfigurationError(f"{region[:40]!r} is not an AWS region", hint="use a name such as us-east-1")
    domain = next((end for begin, end in _DOMAINS.items() if region.startswith(begin)), "amazonaws.com")
    return f"bedrock-runtime.{region}.{domain}"
