"""Pictures of a Trace: terminal, image file, page; all drawn from one scene."""
