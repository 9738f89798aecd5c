"""The seam to Hugging Face transformers: the only place that knows its names, masks, caches and keywords."""
