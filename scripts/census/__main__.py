"""python -m scripts.census: run the census and write docs/models.md. It may be stopped, and goes on with --missing."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="these families")
    parser.add_argument("--missing", action="store_true", help="families without a row by this version of the census")
    parser.add_argument("--failed", action="store_true", help="families whose latest row is not exact, by any version")
    parser.add_argument("--every-class", action="store_true", help="all model classes, not the plain one alone")
    parser.add_argument("--rows", type=Path, default=Path("out/models.jsonl"), help="where the rows are kept")
    parser.add_argument("--page", type=Path, default=Path("docs/models.md"))
    parser.add_argument("--no-page", action="store_true", help="run families and leave the page as it is")
    parser.add_argument("--seconds", type=float, default=40.0, help="processor time that one family may take")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no family after so many minutes")
    return parser.parse_args()


def chosen(asked: argparse.Namespace) -> list[str]:
    """The families to run, in order."""
    from scripts.census import rows
    from scripts.census.families import written
    from scripts.census.page import verdict

    families = asked.only or written()
    if asked.missing:
        known: dict[str, Any] = rows.read(asked.rows, rows.made_by())
        families = [family for family in families if family not in known]
    if asked.failed:
        known = rows.read(asked.rows)
        fine = ("exact", "no attention")
        families = [f for f in families if f not in known or any(verdict(row) not in fine for row in known[f])]
    return families


def main() -> None:
    asked = parsed()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
    import torch
    import transformers

    from scripts.census import compare, page, rows
    from scripts.census.families import plain_class, written
    from scripts.census.run import run

    torch.set_num_threads(1)
    for family in ("bert", "llava"):  # what all need is loaded once, before families run in processes of their own
        compare.census_of(family, plain_class(family))
    began = time.monotonic()
    for family in chosen(asked):
        if time.monotonic() - began > 60 * asked.minutes:
            break
        began_family = time.monotonic()
        its = run(family, asked.every_class, asked.seconds)
        rows.append(asked.rows, its)
        for row in its:
            took = time.monotonic() - began_family
            print(f"{family}: {page.verdict(row)} ({took:.1f} s) {row['problem']}", flush=True)
    if not asked.no_page:
        page.write(rows.read(asked.rows, rows.made_by()), written(), transformers.__version__, asked.page)


if __name__ == "__main__":
    main()
