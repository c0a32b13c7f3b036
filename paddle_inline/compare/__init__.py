"""Comparing forms of attention: one recipe, the same seeds and batches, one page."""
