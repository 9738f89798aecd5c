"""The page that teaches: from an encoder–decoder's bottleneck to the Transformer, on the reader's words."""
