"""python -m scripts.served: try every causal language model of transformers and write docs/served.md."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

HEAD = """# Which decoders can be served

Made by `python -m scripts.served` (transformers {version}): a tiny model of each causal language model, with weights
drawn anew, is loaded for serving as `regard serve` loads it. *Exact*: three prompts computed side by side, in chunks of
16 rows a step, get the tokens that `generate` writes, up to ties within 1e-4. *Refused*: the start ends with this
sentence, and nothing is served. *Not built*: the script found no tiny configuration that `generate` runs.

{counts}

| family | model | verdict | how, or why not |
|---|---|---|---|
"""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="these families")
    parser.add_argument("--rows", type=Path, default=Path("out/served.jsonl"), help="where the rows are kept")
    parser.add_argument("--page", type=Path, default=Path("docs/served.md"))
    parser.add_argument("--missing", action="store_true", help="only families without a row")
    parser.add_argument("--seconds", type=float, default=40.0, help="processor time that one family may take")
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from regard.serve import engine, runner  # noqa: F401  what all trials need is loaded once
    from scripts.served.trial import isolated, tried

    torch.set_num_threads(1)
    tried("llama", "LlamaForCausalLM")
    rows = {}
    if asked.rows.exists():
        rows = {row["model"]: row for row in map(json.loads, asked.rows.read_text(encoding="utf-8").splitlines())}
    asked.rows.parent.mkdir(parents=True, exist_ok=True)
    families: dict[str, str] = {}
    for family, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        families.setdefault(name if isinstance(name, str) else name[0], family)
    for name, family in sorted(families.items(), key=lambda pair: pair[1]):
        if (asked.only and family not in asked.only) or (asked.missing and name in rows):
            continue
        row = rows[name] = asdict(isolated(family, name, asked.seconds))
        with asked.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{family} {name}: {row['verdict']} {row['why']}", flush=True)
    counts = Counter(row["verdict"] for row in rows.values())
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines = [
        f"| {r['family']} | {r['model']} | {r['verdict']} | {(r['why'] or r['how']).replace('|', '/')} |"
        for r in sorted(rows.values(), key=lambda r: (r["family"], r["model"]))
    ]
    head = HEAD.format(version=transformers.__version__, counts=f"{len(lines)} models: {told}.")
    asked.page.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
