"""The native core as a guest in a process: instruction sets, forks, threads, and its absence."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from regard.run import native
from regard.run.native import NATIVE
from tests.run.plans import everything, simple

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))
ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("isa", ["base", "avx2", "avx512"])
def test_every_instruction_set_passes_the_same_tests(isa: str) -> None:
    """The widest is what the other tests run on."""
    probe = python("from regard.run import native; print(native.why_unavailable())", REGARD_NATIVE_ISA=isa)
    if "cannot be had" in probe.stdout:
        pytest.skip(probe.stdout)
    files = ["test_native.py", "test_native_layouts.py", "test_native_linear.py"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--deselect=tests/run/test_native_layouts.py::test_pages_beyond_two_gigabytes",
        *(f"tests/run/{f}" for f in files),
    ]
    chosen = os.environ | {"REGARD_NATIVE_ISA": isa, "REGARD_TEST_EXAMPLES": "8"}
    found = subprocess.run(command, env=chosen, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout[-3000:]


def test_an_unknown_instruction_set_is_said() -> None:
    code = "from regard.run import native; print(native.available(), native.why_unavailable())"
    assert (
        "False the native core cannot run here: REGARD_NATIVE_ISA=mmx cannot be had here"
        in python(code, REGARD_NATIVE_ISA="mmx").stdout
    )


def test_without_the_extension_the_reason_is_given() -> None:
    code = """
import sys
sys.modules["regard.run.native._core"] = None
from regard.run import native
from tests.run.plans import simple
print(native.available(), native.why_unavailable(), native.NATIVE.refuses(simple()))
"""
    said = python(code, REGARD_NATIVE_LIBRARY="").stdout
    assert said.startswith("False the native core was not built") and "slower" in said


def test_a_forked_child_computes_the_same() -> None:
    code = """
import os, torch
torch.set_num_threads(3)
from regard.run.native import NATIVE
from tests.run.plans import simple
plan = simple(600, 600)
before = NATIVE.run(plan).out
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(NATIVE.run(plan).out.view(-1), before.view(-1)) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.equal(NATIVE.run(plan).out, before))
"""
    assert python(code).stdout.strip() == "0 True"


def test_several_threads_may_call_at_once() -> None:
    plans = [simple(400, 400, seed=seed) for seed in range(4)]
    expected = [NATIVE.run(plan).out for plan in plans]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            out = NATIVE.run(plans[index], everything(plans[index])).out
            if out is None or not torch.equal(out, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_torch_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads(), torch.get_num_interop_threads()
    NATIVE.run(simple(300, 300))
    assert (torch.get_num_threads(), torch.get_num_interop_threads()) == before
