"""What runs first in an engine that was forked, as `child` does in one that was spawned; see `conftest`."""

import json
import os
import sys

from stillhouse_vllm import child

if __name__ == "__mp_main__":
    told = json.loads(sys.argv.pop().removeprefix(child.MARK))
    told["output"] = os.open(told["output"], os.O_WRONLY)
    sys.argv.append(child.MARK + json.dumps(told))
    child.begin()
