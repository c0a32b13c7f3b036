"""What can go wrong with a checkpoint, each with an exit code of its own."""

from __future__ import annotations

import sys

from paddle_inline.utils.errors import FileAccessError, MissingFileError, UserError
from paddle_inline.weights.lazy_array import WeightsFileError


class UnknownModelError(UserError):
    """Weights of no model that we know, or of more than one."""


class UnfitWeightsError(UserError):
    """Weights of a known model that no such model can have: NaN, another kind of number, a wrong buffer."""


class CheckFailedError(Exception):
    """A conversion that does not compute what its source computes."""


# The first that fits. 2 is also what argparse answers to a mistake in the call.
_CODES = (
    (CheckFailedError, 1),
    (WeightsFileError, 3),
    (MissingFileError, 3),
    (UnknownModelError, 4),
    (UnfitWeightsError, 5),
    (FileAccessError, 6),
    (UserError, 2),
)
INTERNAL_ERROR = 1
EXIT_CODES = """exit codes:
  0  done
  1  a check failed: two results that should be equal are not; or a fault of this program, with its traceback
  2  a mistake in the call
  3  a file is missing, damaged, not a checkpoint, or contains more than a checkpoint should
  4  no model of this package has these tensors, or several have
  5  weights that no model can have, such as NaN
  6  the output cannot be written
A folder answers with the highest code of its files. Whatever fails leaves the output as it was."""


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an exception that ended a command; None for one that no user can cause."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    # torch_ref imports nothing of paddle_inline, so it has errors of its own
    errors, weights = (sys.modules.get(f"torch_ref.{name}") for name in ("utils.errors", "weights"))
    if errors is None or not isinstance(error, errors.UserError):
        return None
    damaged = weights is not None and isinstance(error, weights.WeightsFileError)
    return 3 if damaged or isinstance(error, errors.MissingFileError) else 2
