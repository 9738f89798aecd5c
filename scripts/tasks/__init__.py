"""Data for the tasks' trainings, generated or laid out from real sets."""
