"""Serving: many requests on one model, from pages of keys and values, each able to ask what it attended to."""
