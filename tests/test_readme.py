"""The README's Python runs as printed, from an empty directory, without a hub; its commands and pictures exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from regard.cli.command import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_python_runs_as_printed(tmp_path: Path) -> None:
    program = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 3 and len(ran.stdout) < 700, ran.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_its_commands_have_verbs_and_options_that_exist() -> None:
    verbs = get_command(app)
    blocks = "\n".join(re.findall(r"```\n(.*?)```", README, re.DOTALL))
    for line in re.findall(r"^regard (\w+)(.*)$", blocks, re.MULTILINE):
        verb = verbs.get_command(None, line[0])  # type: ignore[attr-defined, arg-type]
        assert verb is not None, line
        known = {option for each in verb.params for option in each.opts}
        known |= {option for sub in _inside(verb) for each in sub.params for option in each.opts}
        for option in re.findall(r"(--[a-z-]+)", line[1].split("#")[0]):
            assert option in known, (line, option)


def _inside(verb: object) -> list:  # type: ignore[type-arg]
    names = verb.list_commands(None) if hasattr(verb, "list_commands") else []
    return [verb.get_command(None, name) for name in names]  # type: ignore[attr-defined]


def test_its_pictures_and_pages_exist() -> None:
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert path.startswith("http") or (ROOT / path).exists(), path
