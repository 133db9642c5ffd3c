"""What the server of processes imports, of which the engines of most tests are forked; see `conftest`."""

import multiprocessing
import os

null = os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1)
os.dup2(null, 2)

import vllm.v1.engine.core  # noqa: E402
import vllm.v1.executor.multiproc_executor  # noqa: E402
import vllm.v1.worker.cpu_worker  # noqa: E402

# An engine forks its worker, too.
vllm.v1.executor.multiproc_executor.get_mp_context = lambda: multiprocessing.get_context("fork")
