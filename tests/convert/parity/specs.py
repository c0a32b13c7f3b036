"""Small specs of every family: seconds become hundredths, and nothing else changes."""

from convert.families import small_models

# family -> (model, overrides)
SMALL = {label: (model.name, dict(model.overrides)) for label, model in small_models().items()}


def small(family, **overrides):
    """(name, overrides) of a family's small spec, changed."""
    name, own = SMALL[family]
    return name, {**own, **overrides}


# Four stages of three letters so that every letter stands in every stage beside every letter of every other.
LETTERS = ("IIII", "ISSS", "IMMM", "SISM", "SSMI", "SMIS", "MIMS", "MSIM", "MMSI")


def letters(attn_type):
    """`attn_type` with M's number of InLine blocks where it needs one."""
    return f"{attn_type}1" if "M" in attn_type else attn_type


# What is odd -> (family, overrides, batch)
ODD = {
    "deit, one head, one class, one image, 8 x 20": (
        "deit",
        {"num_heads": 1, "num_classes": 1, "img_size": (8, 20)},
        1,
    ),
    "deit, softmax": ("deit", {"attn_type": "S"}, 3),
    "deit, one channel, no head": ("deit", {"in_chans": 1, "num_classes": 0}, 5),
    **{f"deit, {kind}": ("deit", {"kernel_function": kind}, 3) for kind in ("relu", "leaky_relu", "exp")},
    "pvt, 32 x 96, five images": ("pvt", {"img_size": (32, 96)}, 5),
    "pvt, one head, one class": ("pvt", {"num_heads": (1, 1, 1, 1), "num_classes": 1}, 1),
    "pvt, exp": ("pvt", {"kernel_function": "exp"}, 3),
    "swin, windows of 8, shifted": ("swin", {"window_size": 8, "attn_type": "IIII"}, 3),
    "swin, windows of 8, shifted, 64 x 128": (
        "swin",
        {"window_size": 8, "attn_type": "IIII", "img_size": (64, 128)},
        1,
    ),
    "swin, masked softmax windows": ("swin", {"attn_type": "SSSS"}, 3),
    "swin, one head, one class, no qkv bias": (
        "swin",
        {"num_heads": (1, 1, 1, 1), "num_classes": 1, "qkv_bias": False},
        5,
    ),
    "cswin, 64 x 64, five images": ("cswin", {}, 5),
    "cswin, all InLine, relu": ("cswin", {"attn_type": "IIII", "kernel_function": "relu"}, 3),
    "cswin, one head at the end, one class": ("cswin", {"num_heads": (2, 2, 2, 1), "num_classes": 1}, 1),
    "soft, 64 x 32, one head": ("soft", {"img_size": (64, 32), "num_heads": (1, 1, 1, 1)}, 3),
    "soft_norm, five images": ("soft_norm", {}, 5),
}
