"""One file a verb: a function of the file's name, whose docstring and options are the verb's manual.

What a verb imports when it is loaded is light (typer, regard.cli, regard.errors); the rest is imported in its function.
"""
