"""The page that teaches: from the bottleneck of an encoder–decoder to the Transformer, computed on the reader's words."""
