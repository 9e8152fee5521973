"""Numbers that follow from content or from a seed, the same for ever.

numpy promises no stable stream of random numbers across its versions, and a cache must not change
with an upgrade: so shares and orders come from splitmix64 (Steele, Lea, Flood 2014), a fixed mix of
64 bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

# one salt a purpose, else the same documents would be sampled out and held back
SALT_VALIDATION = 0x76616C6964617465
SALT_WEIGHT = 0x776569676874696E


def mix(keys: Keys) -> Keys:
    """splitmix64 of each key."""
    z = keys + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform_of(keys: Keys, salt: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each key."""
    mixed = mix(keys ^ np.uint64(salt)) >> np.uint64(11)
    return mixed.astype(np.float64) * 2.0**-53


def shuffled(count: int, seed: int) -> npt.NDArray[np.int64]:
    """The numbers below `count` in the order of `seed`."""
    start = mix(np.array([seed], dtype=np.uint64))
    # the mix takes no two numbers to one, so there are no ties and any way of sorting will do
    keys = mix(np.arange(count, dtype=np.uint64) ^ start)
    return np.argsort(keys).astype(np.int64)


def repeats_of(keys: Keys, epochs: float | npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How often each document is seen in one pass; `epochs` is one number or one a document.

    Epochs 2.5: every document twice, half of them a third time; 0.5: half of them once.
    """
    whole = np.floor(epochs)
    extra = uniform_of(keys, SALT_WEIGHT) < epochs - whole
    return whole.astype(np.int64) + extra
