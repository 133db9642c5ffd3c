"""What costs a run nothing that does not use Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from stillhouse_ray.settings import RaySettings


def test_hooks_import_neither_ray_nor_pydantic() -> None:
    code = (
        "import sys, stillhouse_ray; "
        "assert not {'ray', 'pydantic', 'numpy'} & sys.modules.keys(), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "given",
    [{"num_cpus": -1}, {"num_gpus": float("inf")}, {"memory": 0}, {"resources": {"disk": -1}}],
)
def test_an_impossible_amount_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RaySettings.model_validate(given)
