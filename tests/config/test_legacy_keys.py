"""What flags of the authors' programs mean here."""

import pytest

from paddle_inline.config.legacy_keys import average_of_flags


@pytest.mark.parametrize(
    ("model", "settings", "flags", "expected"),
    [
        ("inline_deit_t", (None, None), (False, False), (None, None)),
        ("inline_deit_t", (None, None), (True, False), (0.99996, None)),
        ("inline_cswin_t", (None, None), (True, False), (0.9996, 4096)),
        ("INLINE_CSWIN_T", (0.99, None), (False, True), (0.99, 4096)),
        ("inline_cswin_tiny", (0.99, 512), (True, True), (0.99, 512)),
        ("inline_cswin_tiny", (0.99, None), (False, False), (0.99, None)),
        ("soft_tiny", (0.99, None), (False, True), (0.99, None)),
    ],
)
def test_the_flags_of_averaged_weights(model, settings, flags, expected):
    wanted, decay_given = flags
    assert average_of_flags(model, *settings, wanted=wanted, decay_given=decay_given) == expected
