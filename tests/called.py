"""``python -m tests.called '["module", "function", [argument, …], "result.json"]'``: call a function."""

import importlib
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    module, function, arguments, result = json.loads(sys.argv[1])
    returned = getattr(importlib.import_module(module), function)(*arguments)
    Path(result).write_text(json.dumps(returned))
