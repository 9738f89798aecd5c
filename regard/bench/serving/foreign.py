"""Engines of other projects as contestants: each runs in the Python of an environment of its own, on the same weights.

The model is saved once as a checkpoint that transformers reads, with a tokenizer of one word per id, for some engines
want one; the load goes as JSON. `regard.bench.serving.elsewhere` says what the scripts read and write.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from regard.bench.serving.load import Ask
from regard.bench.serving.measured import Replay, middle
from regard.errors import UserError

SCRIPTS = {"openvino": "with_openvino.py", "vllm": "with_vllm.py"}
VARIANTS = {"openvino": ("f32", "bf16", "int8", "int8-f32"), "vllm": ("float32", "bfloat16")}


@dataclass(frozen=True)
class Peer:
    """An engine by its name, how it computes, and the Python that has it installed."""

    engine: str
    variant: str
    python: Path

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.engine} {self.variant}"


def read_peers(written: list[str]) -> list[Peer]:
    """Peers of "openvino=PYTHON" (its first variant) or "openvino:f32,int8=PYTHON". Raises UserError."""
    found = []
    for text in written:
        what, equals, python = text.partition("=")
        engine, _, variants = what.partition(":")
        if engine not in SCRIPTS or not equals:
            raise UserError(f"--peer {text}: write one of {', '.join(SCRIPTS)}, then = and its Python")
        if not (Path(python).is_file() and os.access(python, os.X_OK)):
            raise UserError(f"--peer {text}: {python} is no program; give the Python of an environment with {engine}")
        for variant in variants.split(",") if variants else VARIANTS[engine][:1]:
            if variant not in VARIANTS[engine]:
                raise UserError(f"--peer {text}: {variant} is none of {', '.join(VARIANTS[engine])}")
            found.append(Peer(engine, variant, Path(python)))
    return found


def save(model: Any, folder: Path) -> None:
    """A checkpoint with a tokenizer whose word i is "<i>"."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    words = {f"<{i}>": i for i in range(model.config.vocab_size)}
    made = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<0>").save_pretrained(folder)


def replay(peer: Peer, folder: Path, asks: list[Ask], turns: int = 1, budget: int = 512) -> Replay:
    """The load by a peer, the median of some turns. folder: holds `model` of `save`; budget: most tokens of a step.
    Raises UserError with the end of what the peer said when it fails."""
    load: dict[str, Any] = {"asks": [asdict(ask) for ask in asks], "budget": budget, "turns": turns}
    load["threads"] = torch.get_num_threads()
    (folder / "load.json").write_text(json.dumps(load), encoding="utf-8")
    script = Path(__file__).parent / "elsewhere" / SCRIPTS[peer.engine]
    threads = str(load["threads"])
    environment = os.environ | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    command = [str(peer.python), str(script), str(folder), peer.variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    answer = folder / f"{peer.variant}.json"
    if done.returncode or not answer.is_file():
        raise UserError(f"{peer.name} failed: {(done.stderr.strip() or done.stdout.strip())[-1500:]}")
    found = json.loads(answer.read_text(encoding="utf-8"))
    answer.unlink()
    ran = [Replay(peer.name, t["times"], t["seconds"], t["tokens"], {"about": found["about"]}) for t in found["turns"]]
    return middle(ran)
