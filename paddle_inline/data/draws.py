"""Random draws that depend on what they are for, never on who makes them or when."""

from __future__ import annotations

import functools
import random

import numpy as np
from numpy.random.bit_generator import ISeedSequence


class _Nothing(ISeedSequence):
    """What a generator starts from that is seeded at once."""

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return np.ones(n_words, dtype)


class Draws:
    """Two generators, made from a key of whole numbers such as (seed, epoch, image).

    The same key gives the same draws in any process, with any number of workers, before and after
    a resume.

    Attributes:
        py: a `random.Random`, for what the reference draws from Python's module.
        np: a `numpy.random.RandomState`, for what it draws from numpy's.
    """

    def __init__(self, *key: int) -> None:
        for_py, self._for_np = np.random.SeedSequence(key).generate_state(2)
        self.py = random.Random(int(for_py))

    @functools.cached_property
    def np(self) -> np.random.RandomState:
        """The generator of numpy's kind, made when it is first asked for."""
        made = np.random.RandomState(np.random.MT19937(_Nothing()))
        made.seed(self._for_np)  # as RandomState(seed), which first asks the system for 0.1 ms of chance
        return made


def seed_of(*key: int) -> int:
    """Return a 32-bit seed for a framework's own generator, made from a key of whole numbers."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
