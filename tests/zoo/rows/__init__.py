"""One file a mechanism: its paper's equation, dense and without regard's parts, and the row that enrols it."""
