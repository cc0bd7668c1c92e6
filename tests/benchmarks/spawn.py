"""Runs a command and prints the seconds and the peak memory it took, as JSON on the last line.

A program of its own that imports next to nothing: see :func:`tests.benchmarks.parts.run_process`.
"""

import json
import os
import sys
import time


def main() -> int:
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    print()
    print(json.dumps({"seconds": seconds, "peak_mib": usage.ru_maxrss * unit / 2**20}))
    return os.waitstatus_to_exitcode(status) != 0


if __name__ == "__main__":
    sys.exit(main())
