"""Every number of the product that decides something stands here once more: tolerances, limits of safety, formats.

A change of one is then a decision, and not a slip: it changes this table too, with its reason in the commit. (The
numbers of models, layers and operations are held by the recorded outputs, those of the settings by test_schema.py.)
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("paddle_inline/models", "paddle_inline/ops", "paddle_inline/layers", "paddle_inline/cli")

PINNED = {
    "convert/__main__.py": {"INTERRUPTED": 130},
    "convert/torch_onnx.py": {"OPSET": 17},
    "convert/parity/tolerance.py": {
        "OUTPUT": {"float64": 1e-10, "float32": 2e-5, "bfloat16": 5e-2},
        "GRADIENT": {"float64": 1e-9, "float32": 1e-3, "bfloat16": 3e-1},
        "GRADIENT_FLOOR": 1e-6,
        "WEIGHT": 0.0,
        "STEP_LOSS": 1e-8,
        "STEP_WEIGHT": 1e-7,
        "ARBITER_FACTOR": 2.0,
        "ARBITER_ULP": 4,
        "ULP": {"float32": 2.0**-23, "bfloat16": 2.0**-7},
        "GOLDEN": {"torch": (1e-10, 1e-10), "paddle": (1e-10, 1e-10)},
        "GOLDEN_FLOAT32_LOGITS": 5e-6,
    },
    "convert/parity/inputs.py": {"BACKBONE_SIZE": (133, 77), "READ_OUT": 5},
    "convert/parity/recording.py": {"FORMAT": 1},
    "convert/families/soft.py": {"_SMALL": {"embed_dims": (8, 12, 16, 24), "num_heads": (1, 2, 2, 3)}},
    "convert/families/swin.py": {"LARGEST_IMAGE": 2048, "LARGEST_BUFFERS": 1 << 25},
    "convert/formats/select.py": {"_MOST": 200_000},
    "convert/formats/source.py": {"_LARGEST_INDEX": 1 << 26},
    "convert/formats/patch.py": {"_CHUNK": 1 << 24},
    "convert/formats/torch_file.py": {
        "LEGACY_MAGIC": 0x1950A86A20F9469CFC6C,
        "_LARGEST_DIRECTORY": 1 << 24,
        "_HEADER": 30,
    },
    "convert/formats/torch_pickle.py": {
        "_OTHER_STORAGES": {
            **{"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1},
            **{"QUInt2x4Storage": 1, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16},
        }
    },
    "convert/inspection.py": {"_MOST": 40},
    "convert/errors.py": {"INTERNAL_ERROR": 1},
    "convert/optimizer_state.py": {
        "DEFAULTS": {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}
    },
    "paddle_inline/compare/comparison.py": {"FORMAT": 1},
    "paddle_inline/compare/inside.py": {"IMAGES": 16},
    "paddle_inline/compare/page.py": {"MOST_BEST": 3},
    "paddle_inline/compare/plan.py": {"EPOCHS": 8, "EPOCHS_OF_A_FOLDER": 30, "SMALL_WIDTH": 128},
    "paddle_inline/compare/timing.py": {
        **{"SIDES": (1, 2, 4), "BATCH": 8, "GRIDS": (14, 20, 28, 40, 56), "SLOPE_FROM": 784},
        "RANK_GRID": (14, 14),
    },
    "paddle_inline/config/legacy_keys.py": {
        "DECAY": 0.99996,
        "CSWIN_AVERAGE": {"ema.decay": 0.9996, "ema.lr_batch": 4096},
    },
    "paddle_inline/data/cifar.py": {"MOST_BYTES": 1 << 30},
    "paddle_inline/data/classes.py": {"LONGEST_PYTHON": 4 << 20, "MOST_CLASSES": 1_000_000},
    "paddle_inline/data/filters.py": {"SLIM": 16},
    "paddle_inline/data/pixel_loops.py": {"BITS": 22, "BAND": 64},
    "paddle_inline/data/imagenet.py": {"SETTLED": 2 * 10**9},
    "paddle_inline/data/lists.py": {"MOST_BYTES": 512 << 20},
    "paddle_inline/data/loaders.py": {"BAD": -1, "LAST_BATCH_SECONDS": 5},
    "paddle_inline/data/prefetch.py": {"UNFINISHED": 16},
    "paddle_inline/data/pictures.py": {
        "BACKGROUND": (255, 255, 255),
        "_ORIENTATION": 0x0112,
        "_BITS": 0x0102,
        "_PHOTOMETRIC": 0x0106,
        "_SAMPLE_FORMAT": 0x0153,
        "_WHITE_IS_ZERO": 0,
        "_SIGNED": 2,
        "_TRANSPOSED": {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2},
        "_SWAPPED": (5, 6, 7, 8),
    },
    "paddle_inline/data/reduced.py": {"DENOMINATORS": (8, 4, 2), "MARGIN": 1.5},
    "paddle_inline/inference/pictures.py": {"_CHANNELS": {"L": (1, 3), "RGB": (3,), "RGBA": (4, 3)}},
    "paddle_inline/weights/channels.py": {"FROM": (1, 3)},
    "paddle_inline/data/published.py": {
        "IMAGENET_MEAN": (0.485, 0.456, 0.406),
        "IMAGENET_STD": (0.229, 0.224, 0.225),
    },
    "paddle_inline/data/randaugment.py": {
        "MAX_LEVEL": 10.0,
        "WEIGHTED": {
            "weights": {
                **{"Rotate": 3, "ShearX": 2, "ShearY": 2, "TranslateXRel": 1, "TranslateYRel": 1},
                **{"ColorIncreasing": 0.25, "SharpnessIncreasing": 0.25, "AutoContrast": 0.25},
                **{"SolarizeIncreasing": 0.05, "SolarizeAdd": 0.05, "ContrastIncreasing": 0.05},
                **{
                    "BrightnessIncreasing": 0.05,
                    "Equalize": 0.05,
                    "PosterizeIncreasing": 0.05,
                    "Invert": 0.05,
                },
            },
            "3aw": {
                **{"SolarizeIncreasing": 6, "Desaturate": 6, "GaussianBlur": 6},
                **{"Rotate": 3, "ShearX": 2, "ShearY": 2},
                **{"PosterizeIncreasing": 1, "AutoContrast": 1, "ColorIncreasing": 1},
                **{"SharpnessIncreasing": 1, "ContrastIncreasing": 1, "BrightnessIncreasing": 1},
                **{"Equalize": 1, "Invert": 1},
            },
        },
    },
    "paddle_inline/data/resizing.py": {"LONGEST": 16},
    "paddle_inline/data/shards.py": {"WINDOW": 4096, "FORM": 2},
    "paddle_inline/data/signatures.py": {"HEAD": 512},
    "paddle_inline/data/tar_members.py": {"_BLOCK": 512},
    "paddle_inline/data/transforms.py": {"SMALL": 32},
    "paddle_inline/inference/backends.py": {"ONEDNN_SHAPES": 16},
    "paddle_inline/inference/calibration.py": {
        **{"MAX_DROP": 0.5, "CALIBRATION": 300, "MOST_HELD_OUT": 10_000, "LEAST": 32, "SHARE": 0.5, "SEED": 0}
    },
    "paddle_inline/inference/card.py": {"FORMAT": 1},
    "paddle_inline/inference/checks.py": {"TOLERANCE": 1e-5, "BF16_IMAGES": 16},
    "paddle_inline/inference/int8.py": {"BATCH": 8},
    "paddle_inline/inference/gallery.py": {"THUMBNAIL": 224, "SMALL": 64},
    "paddle_inline/inference/onnx_export.py": {"OPSET": 17},
    "convert/families/forms.py": {
        "_FOUR": {"depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)},
        "_USUAL": {"num_agents": 49, "num_projected": 64, "conv_kernel": 35},
    },
    "paddle_inline/inference/openvino_graph.py": {"TAPS": 9},
    "paddle_inline/inference/serving.py": {"MAX_BATCH": 64},
    "paddle_inline/training/answers.py": {"MOST_MISTAKES": 1000, "MOST_PICTURES": 24},
    "paddle_inline/training/callbacks.py": {"EVERY": 60.0},
    "paddle_inline/training/failure.py": {"POLL_SECONDS": 0.5},
    "paddle_inline/training/lettering.py": {"LONGEST_NAME": 22},
    "paddle_inline/training/flat.py": {"ALIGNED": 256, "CHUNK": 1 << 16},
    "paddle_inline/training/guarded.py": {"LEAST_ROWS": 1000},
    "paddle_inline/training/loop.py": {"MIXING": 1},
    "paddle_inline/training/plots.py": {"MOST_CLASSES": 30},
    "paddle_inline/training/reading.py": {"STOP_SECONDS": 2.0},
    "paddle_inline/training/state.py": {"FORMAT": 2},
    "paddle_inline/training/sync_bn.py": {"DIMS": (0, 2, 3)},
    "paddle_inline/segmentation/predict.py": {"STRENGTH": 0.4},
    "paddle_inline/segmentation/scores.py": {"IGNORED": 255},
    "paddle_inline/utils/environment.py": {"M_TRIM_THRESHOLD": -1, "M_MMAP_MAX": -4},  # glibc's
    "paddle_inline/utils/timing.py": {"REST": 0.3},
    "paddle_inline/weights/atomic.py": {"LONGEST_NAME": 255},
    "paddle_inline/weights/description.py": {
        "FORMAT": 1,
        "_LARGEST_SIDE": 1 << 14,
        "_MOST_CLASSES": 1 << 20,
    },
    "paddle_inline/training/program.py": {"INTERRUPTED": 130},
    "paddle_inline/weights/load.py": {"_LONGEST_DESCRIPTION": 1 << 24},
    "paddle_inline/weights/safe_pickle.py": {
        "MOST_STEPS": 2_000_000,
        "_LONGEST_TEXT": 1 << 20,
        "_LEFT_IN_FILE": 1 << 12,
    },
    "paddle_inline/utils/hub_config.py": {"FORMAT": 1, "_LARGEST_CONFIG": 1 << 26, "_SMALL": 32},
    "paddle_inline/weights/safetensors.py": {"_LONGEST_HEADER": 100_000_000},
    "paddle_inline/weights/tables.py": {"LINES": {"ah_bias": 3, "aw_bias": 4, "ha_bias": 2, "wa_bias": 3}},
}


def numbers_of(path):
    """Return {name: value} of the numbers, and containers of numbers alone, that a module gives a name."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(target.elts, node.value.elts)
        for name, value in pairs:
            try:
                value = eval(compile(ast.Expression(value), "", "eval"), {"__builtins__": {}})
            except Exception:  # it is computed from something else
                continue
            if isinstance(name, ast.Name) and numeric(value):
                found[name.id] = value
    return found


def numeric(value):
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(numeric, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def modules():
    paths = [*ROOT.glob("paddle_inline/**/*.py"), *ROOT.glob("convert/**/*.py"), ROOT / "train_paddle.py"]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith(LEFT_OUT)])
def test_the_numbers_of_a_module_are_those_of_the_table(name):
    found, expected = numbers_of(ROOT / name), PINNED.get(name, {})
    assert found == expected, (
        f"decide on {name}'s numbers in PINNED: {set(found) ^ set(expected) or 'their values'}"
    )


def test_the_table_names_modules_that_are_there():
    assert set(PINNED) <= set(modules())


def test_a_number_that_changes_or_is_new_is_found(tmp_path):
    path = tmp_path / "m.py"
    path.write_text('A, B = 1e-8, 2\nC: float = 3 << 2\nD = {"x": (1, 2.5)}\nE = "no"\nF = True\nG = A * 2\n')
    assert numbers_of(path) == {"A": 1e-8, "B": 2, "C": 12, "D": {"x": (1, 2.5)}}
