"""What runs first in an engine that was forked: it prints where `child` would let it print; see `conftest`."""

import json
import os
import sys

from stillhouse_vllm import child

if __name__ == "__mp_main__":
    told = json.loads(sys.argv.pop().removeprefix(child.MARK))
    output = os.open(told["output"], os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
