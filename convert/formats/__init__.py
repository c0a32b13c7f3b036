"""Checkpoint files of both frameworks: read without trusting them, written whole or not at all."""
