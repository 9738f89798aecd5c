"""`regard bench serve`: one load, replayed against regard and against what else can serve it, in one run."""
