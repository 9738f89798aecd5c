"""python -m scripts.census [--every-class] [--only FAMILY …]: run the census and write docs/models.md."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every-class", action="store_true", help="all model classes, not the plain one alone")
    parser.add_argument("--only", nargs="*", help="these families; the page keeps what it knows of the others")
    parser.add_argument("--rows", type=Path, default=Path("out/models.jsonl"), help="where the rows are kept")
    parser.add_argument("--page", type=Path, default=Path("docs/models.md"))
    parser.add_argument("--seconds", type=float, default=180.0, help="the longest that one family may take")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
    import torch
    import transformers

    from scripts.census import page
    from scripts.census.families import written
    from scripts.census.run import run

    torch.set_num_threads(1)
    chosen.rows.parent.mkdir(exist_ok=True)
    with chosen.rows.open("a", encoding="utf-8") as file:
        for family in written() if chosen.only is None else chosen.only:
            for row in run([family], chosen.every_class, chosen.seconds):
                file.write(json.dumps(row) + "\n")
            file.flush()
    page.write(page.read([chosen.rows]), written(), transformers.__version__, chosen.page)


if __name__ == "__main__":
    main()
