"""The census: every model family of transformers, built tiny, watched, and held against eager attention."""
