"""A server's packed steps give each sequence the statistics that it would have had alone, whoever else was there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from regard.core.layout import Ragged
from regard.inputs import inputs, packed_inputs
from regard.parts import masks
from regard.parts.defaults import mechanism_with as mechanism_of
from regard.run.choose import observers
from regard.seeing.batch import Batch
from regard.seeing.statistics import Entropy, standard
from regard.seeing.watching import Watching
from regard.statistic import Axis, Statistic, View

H, G, D = 4, 2, 8
STEPS = [{0: 5}, {0: 1, 1: 9}, {1: 1, 2: 3, 0: 1}, {2: 1, 1: 4}, {0: 2}, {2: 7, 0: 1, 1: 1}]
"""New tokens of each sequence that a step computes, by its number; prefill, decoding and chunks, in any company."""


@dataclass
class Sequence:
    q: Tensor
    k: Tensor
    ids: Tensor
    length: int = 0

    @staticmethod
    def of(seed: int) -> Sequence:
        make = torch.Generator().manual_seed(seed)
        q, k = torch.randn(1, H, 40, D, generator=make), torch.randn(1, G, 40, D, generator=make)
        return Sequence(q, k, torch.randint(0, 6, (1, 40), generator=make))

    def view(self) -> View:
        ids = self.ids[:, : self.length]
        valid = torch.ones(1, self.length, dtype=torch.bool)
        axis = Axis(torch.arange(self.length)[None], valid, ids, ids == 0)
        return View(1, H, axis, axis, True)


@dataclass(frozen=True)
class OwnEntropy(Entropy):
    """One that states no core records, so that strips reduce it."""

    def core(self, view: View, rows: slice) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "strips"])
@pytest.mark.parametrize("watch", [standard(resolution=8, k=3), (OwnEntropy(),)], ids=["standard", "open"])
def test_each_sequence_has_the_statistics_that_it_has_alone(watch: tuple[Statistic, ...], fused: bool) -> None:
    mechanism = mechanism_of("window", "", mask=masks.causal() & masks.window(9) | masks.causal() & masks.sinks(1))
    backends = observers() if fused else ()
    sequences = [Sequence.of(seed) for seed in range(3)]
    watchings = [Watching(watch, backends) for _ in sequences]
    for step in STEPS:
        rows = []
        for number, new in step.items():
            rows.append(slice(sequences[number].length, sequences[number].length + new))
            sequences[number].length += new
        here = [sequences[number] for number in step]
        cu_query = torch.tensor([0, *[r.stop - r.start for r in rows]]).cumsum(0)
        cu_key = torch.tensor([0, *[s.length for s in here]]).cumsum(0)
        q = torch.cat([s.q[0, :, r] for s, r in zip(here, rows, strict=True)], 1).transpose(0, 1)
        k = torch.cat([s.k[0, :, : s.length] for s in here], 1).transpose(0, 1)
        layout = Ragged(cu_query, cu_key)
        batch = Batch(watch, [s.view() for s in here], rows, layout)
        x = packed_inputs(q, k, None, layout)
        batch.absorb([watchings[number] for number in step], mechanism, x, backends)
    for sequence, watching in zip(sequences, watchings, strict=True):
        alone, view = Watching(watch), sequence.view()
        n = sequence.length
        alone.absorb(mechanism, inputs(sequence.q[:, :, :n], sequence.k[:, :, :n]), view, slice(0, n), 0, None)
        found, expected = watching.finish(view)[0], alone.finish(view)[0]
        assert found.keys() == expected.keys() and watching.undefined == alone.undefined
        for label, results in expected.items():
            for name, value in results.items():
                assert torch.allclose(found[label][name].double(), value.double(), atol=1e-5), (label, name)
