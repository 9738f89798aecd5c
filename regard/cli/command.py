"""The command: its verbs found, its errors turned into one sentence."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from regard.errors import UserError

try:
    import typer
except ImportError:  # pragma: no cover (the command alone needs it)
    print("regard: the command needs typer: pip install 'regard[all]'", file=sys.stderr)
    sys.exit(2)

from regard.cli.found import verbs_in

EXTRAS = (
    "transformers",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "PIL",
    "numpy",
    "matplotlib",
    "rich",
    "accelerate",
)

app = typer.Typer(
    name="regard",
    cls=verbs_in("regard.cli.verbs"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from regard import __version__

        print(f"regard {__version__}")
        raise typer.Exit


@app.callback()
def regard(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """See and explain the attention of any transformer."""


def main() -> None:
    """Run the command. Exit code 0, or 2 with one sentence on standard error for a user's mistake.

    A user's mistake is a UserError, a word that the command does not know, or an extra that is not installed. Every
    other exception is a fault of regard and keeps its traceback.
    """
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        _refuse(str(error))
    except ImportError as error:
        name = (error.name or "").split(".")[0]
        if "pip install" not in str(error) and name not in EXTRAS:
            raise
        _refuse(str(error) if "pip install" in str(error) else f"this needs {name}: pip install 'regard[all]'")
    except typer.TyperException as error:
        _refuse(error.format_message())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _refuse(sentence: str) -> None:
    """One line on standard error, with nothing in it that moves a terminal's cursor; exit code 2.

    A text and the marks below it (regard.text.TextError) keep their lines.
    """
    said, *pointing = sentence.rsplit("\n", 2) if set(sentence.rpartition("\n")[2]) <= {" ", "^"} else [sentence]
    lines = [f"regard: {' '.join(said.split())}" if said.strip() else "", *pointing]
    for line in filter(None, lines):
        print("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line), file=sys.stderr)
    sys.exit(2)
