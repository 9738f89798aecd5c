"""Every causal language model of transformers, built tiny: served exactly, or refused by name at start."""
