"""The census's rows on disk, and what it does with what an error says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from scripts.census import rows
from scripts.census.__main__ import chosen
from scripts.census.families import written
from scripts.census.feeds import asked_for
from scripts.census.tiny import merged

EXACT: dict[str, Any] = {"could_run": True, "same_bits": True, "error": 0.0, "seen": {"made": 1}, "unseen": {}}


def asked(path: Path, **changes: Any) -> Any:
    return SimpleNamespace(**{"only": [], "missing": False, "failed": False, "rows": path, **changes})


def test_rows_are_kept_by_what_made_them_and_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append(path, [{**EXACT, "family": "bert", "model": "BertModel", "problem": ""}])
    old = {**EXACT, "family": "gpt2", "model": "GPT2Model", "problem": "", "made_by": "transformers 4.0, census 0"}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(old) + "\n")
    assert set(rows.read(path)) == {"bert", "gpt2"}
    assert set(rows.read(path, rows.made_by())) == {"bert"}
    assert set(written()) - set(chosen(asked(path, missing=True))) == {"bert"}
    assert set(written()) - set(chosen(asked(path, failed=True))) == {"bert", "gpt2"}
    rows.append(path, [{"family": "bert", "model": "?", "problem": "not run: it took too long"}])
    assert [row["model"] for row in rows.read(path)["bert"]] == ["?"]
    assert "bert" in chosen(asked(path, failed=True))
    assert chosen(asked(path, only=["vit"])) == ["vit"]


def test_an_error_tells_how_many_tokens_stand_for_media() -> None:
    inputs = {"input_ids": torch.zeros(2, 5), "pixel_values": torch.zeros(2, 3, 4, 4)}
    said = "Image features and image tokens do not match, tokens: 0, features: 32"
    assert asked_for(said, inputs) == {"image": 16}
    assert asked_for("Audio features and audio tokens do not match, tokens: 3, features: 7", inputs) == {"audio": 4}
    assert asked_for("mat1 and mat2 shapes cannot be multiplied", inputs) is None


def test_a_setting_goes_inside_a_config_unless_it_names_another_model() -> None:
    settings = {"a": 1, "vision_config": {"model_type": "vit", "width": 8, "depth": 2}}
    assert merged(settings, {"vision_config": {"depth": 3}})["vision_config"] == {
        "model_type": "vit",
        "width": 8,
        "depth": 3,
    }
    other = {"vision_config": {"model_type": "swin"}}
    assert merged(settings, other)["vision_config"] == {"model_type": "swin"}
