"""Triton as a guest in a process: nobody imports it early, its absence is one sentence, its kernels compile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from regard.run.triton import available, why_unavailable

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_nothing_imports_triton_before_a_kernel_runs() -> None:
    loaded = python(
        "import sys, torch; before = set(sys.modules)\n"
        "import regard, regard.run.choose, regard.run.triton.decode, regard.run.triton.gradients\n"
        "import regard.run.triton.watch\n"
        "regard.run.triton.TRITON\n"
        "print([name for name in set(sys.modules) - before if name.split('.')[0] == 'triton'])"
    )
    assert loaded.strip() == "[]"


def test_on_the_cpu_the_reason_is_one_sentence() -> None:
    said = python(
        "import torch, regard\n"
        "q = torch.randn(1, 1, 3, 4)\n"
        "try: regard.attention(q, q, q, 'causal', backend='triton')\n"
        "except ValueError as error: print(error)",
        TRITON_INTERPRET="0",
    )
    assert "the tensors lie on cpu, and Triton computes on NVIDIA GPUs" in said or "triton is not installed" in said


def test_without_triton_the_reason_says_what_to_install() -> None:
    said = python(
        "import sys, torch; sys.modules['triton'] = None\n"
        "import regard\n"
        "q = torch.randn(1, 1, 3, 4)\n"
        "assert regard.attention(q, q, q, 'causal').shape == q.shape\n"
        "try: regard.attention(q, q, q, 'causal', backend='triton')\n"
        "except ValueError as error: print(error)"
    )
    assert "triton is not installed" in said and "pip install triton" in said


# Launching is replaced by compiling for a Hopper GPU, which Triton does without one.
COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Absent:
    get_current_target = lambda self: GPUTarget("cuda", 90, 32)
    get_current_device = lambda self: 0
    get_current_stream = lambda self, device: 0

driver.set_active(Absent())
launch, compiled = JITFunction.run, {}

def only_compile(self, *arguments, grid, warmup, **settings):
    kernel = launch(self, *arguments, grid=grid, warmup=True, **settings)
    compiled[self.__name__] = kernel.asm["ptx"]

JITFunction.run = only_compile

from regard import core
from regard.core.layout import Paged
from regard.run.triton import calls, decode, gradients
from tests.run.plans import simple, term
import dataclasses

def plan(dtype, width, kind, *terms):
    found = simple(256, 256, width=width, kind=kind)
    more = tuple(term(name, 1, 4, 256, 256) for name in terms)
    q, k, v = (x.to(dtype) for x in (found.q, found.k, found.v))
    return dataclasses.replace(found, q=q, k=k, v=v, terms=(*found.terms, *more), softmax=core.Softmax(torch.ones(4)))

short = core.Watch((core.RowEntropy(), core.TopK(1), core.ColumnMass(), core.Pool(4, 9)))
calls.walk(plan(torch.bfloat16, 64, "window and sinks", "softcap"), short, True)
ready = calls.prepare(plan(torch.bfloat16, 64, "causal", "slope"))
out, rows = torch.zeros_like(ready.plan.q), torch.zeros(ready.plan.q.shape[:3])
gradients.gradients(ready.plan, out, rows, rows, out)
decode.why_unavailable = lambda device: None
pages = [torch.zeros(4, 2, *shape, dtype=torch.bfloat16) for shape in ((64, 16), (16, 64))]
whole = torch.zeros(2, 2, dtype=torch.int32)
decode.paged_decode(torch.zeros(2, 8, 64, dtype=torch.bfloat16), *pages, Paged(whole, whole[0], 16), starts=whole[0])
for name, ptx in sorted(compiled.items()):
    print(name, "wgmma" in ptx, "cp.async" in ptx)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="the other tests run the compiled kernels on this GPU")
@pytest.mark.skipif(why_unavailable(torch.device("cpu")) is not None, reason="triton is not installed")
def test_every_kernel_compiles_for_hopper(tmp_path: Path) -> None:
    """Tensor-core products of two blocks, and loads in flight while a tile is computed, where they should be."""
    said = python(COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    found = {name: (products == "True", loads == "True") for name, products, loads in map(str.split, said.splitlines())}
    assert set(found) == {
        "forward_kernel", "statistics_kernel", "delta_kernel", "queries_kernel", "keys_kernel",
        "split_kernel", "merge_kernel",
    }  # fmt: skip
    for name in ("forward_kernel", "queries_kernel", "keys_kernel"):
        assert found[name] == (True, True), name
    assert found["split_kernel"][1]


def test_a_triton_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "_version", lambda: (3, 6))
    monkeypatch.setattr(available, "find_spec", lambda name: object())
    assert why_unavailable(torch.device("cpu")) == (
        "triton 3.6 is too old to compile these kernels; they need 3.7 or newer"
    )
