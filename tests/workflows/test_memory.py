import platform
import subprocess
import sys

import pytest

from tests.conftest import REPO

#: Page faults of a loop that allocates and frees eight tensors of 16 MB, as many as a small network's, ten times.
LOOP = """
import ctypes, resource, sys, torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages, of which the system has now more and now fewer to give
from src.workflows.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
[torch.ones(4_000_000) for _ in range(8)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    [torch.ones(4_000_000) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_is_used_again():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", LOOP, how]
        return int(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("default") / 4
