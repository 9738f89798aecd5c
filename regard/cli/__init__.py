"""The command `regard`: one file a verb in `verbs/`, each parse → call → print."""

from regard.cli.command import main

__all__ = ["main"]
