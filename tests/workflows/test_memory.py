import os
import platform
import subprocess
import sys

import pytest

from tests.conftest import REPO

pytestmark = pytest.mark.slow

#: Page faults of a loop that allocates and frees four tensors of 64 MB ten times, after it has done so twice; first as
#: the system would have it, in a fork, then as we would. Blocks of more than 32 MB go back to the system when freed,
#: whatever glibc has learned of the process; smaller ones may not.
LOOP = """
import ctypes, os, resource, torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no huge pages, of which the system has now more and now fewer to give
from src.workflows.memory import keep_freed_memory
if os.fork():
    os.wait()
    assert keep_freed_memory()
for _ in range(2):
    [torch.ones(16_000_000) for _ in range(4)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    [torch.ones(16_000_000) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_is_used_again():
    command = [sys.executable, "-c", LOOP]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_", "MALLOC_"))}
    said = subprocess.run(command, cwd=REPO, env=plain, capture_output=True, text=True, check=True).stdout
    default, kept = map(int, said.split())
    assert kept < default / 4
