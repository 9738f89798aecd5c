"""Small records that mechanisms are made of: scores, masks, normalisers, mixes, and what prepares tokens."""
