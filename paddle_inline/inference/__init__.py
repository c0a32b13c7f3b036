"""Exported models: writing them, the engines that run them, and predictions from pictures."""
