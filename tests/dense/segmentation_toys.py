"""Small data sets in the layouts of ADE20K, Cityscapes and lists, and small segmenters."""

from pathlib import Path

import numpy as np
from PIL import Image

from paddle_inline.segmentation.settings import Settings

NORMALIZE = "{type: Normalize}"
BACKBONE = (
    "{type: inline_pvt_tiny, depths: [1, 1, 1, 1], embed_dims: [8, 16, 24, 32], num_heads: [1, 2, 3, 4]}"
)
# head -> what makes it small
SMALL = {
    "SemanticFPN": "pyramid_channels: 8, channels: 8, groups: 2",
    "UperNet": "channels: 8, auxiliary_channels: 8",
}
CONFIGS = {
    "SemanticFPN": "semantic_fpn_inline_pvt_tiny_40k.yml",
    "UperNet": "upernet_inline_swin_tiny_160k.yml",
}


def picture(rng, height, width, classes):
    """A picture [H, W, 3] of noise and rectangles, and its labels [H, W], each rectangle a class of its own colour."""
    labels = np.zeros((height, width), np.uint8)
    for label in range(1, classes):
        top, left = rng.randint(0, height - 16), rng.randint(0, width - 16)
        labels[top : top + 16, left : left + 24] = label
    colours = np.random.RandomState(1).randint(0, 200, (256, 3))
    return (colours[labels] + rng.randint(0, 40, (height, width, 3))).astype(np.uint8), labels


def save(root, name, array):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def make_ade20k(root, numbers=(5, 3), classes=4):
    """ADE20K's folders: labels count from 1, and 0 is not labelled."""
    rng = np.random.RandomState(0)
    for part, number in zip(("training", "validation"), numbers):
        for i in range(number):
            image, labels = picture(rng, 48 + 8 * i, 64 + 5 * i, classes)
            save(root, f"images/{part}/p{i}.jpg", image)
            labels = labels + 1
            labels[:4] = 0
            save(root, f"annotations/{part}/p{i}.png", labels.astype(np.uint8))
    return root


def make_cityscapes(root, number=2, classes=19):
    """Cityscapes' folders: two towns, labels of training."""
    rng = np.random.RandomState(0)
    for mode in ("train", "val"):
        for i in range(number):
            image, labels = picture(rng, 64, 128, classes)
            labels[-4:] = 255
            town = ("ulm", "bonn")[i % 2]
            save(root, f"leftImg8bit/{mode}/{town}/{town}_{i}_leftImg8bit.png", image)
            save(root, f"gtFine/{mode}/{town}/{town}_{i}_gtFine_labelTrainIds.png", labels)
    return root


def options(head, root, out, *more, kind="ADE20K", crop=64):
    """The command line's `--cfg ... -o ...` for a small segmenter on the data set in `root`."""
    cut = f"[{{type: RandomPaddingCrop, crop_size: [{crop}, {crop}], category_max_ratio: 0.9}}, {NORMALIZE}]"
    configs = Path(__file__).parents[2] / "configs" / "segmentation"
    settings = {
        "model.backbone": BACKBONE.replace("{", "{_inherited_: false, in_channels: 3, "),
        "train_dataset.dataset_root": root,
        "val_dataset.dataset_root": root,
        "train_dataset.type": kind,
        "val_dataset.type": kind,
        "train_dataset.transforms": cut.replace("}, {", "}, {type: RandomHorizontalFlip}, {"),
        "val_dataset.transforms": f"[{NORMALIZE}]",
        "batch_size": 2,
        "iters": 4,
        "save_interval": 2,
        "log_iters": 1,
        "save_dir": out,
    }
    for pair in SMALL[head].split(", "):
        settings[f"model.{pair.split(': ')[0]}"] = pair.split(": ")[1]
    texts = [f"{key}={value}" for key, value in settings.items()]
    return ["--cfg", str(configs / CONFIGS[head]), "-o", *texts, *more]


def settings_of(head, ade, *more):
    _, path, _, *pairs = options(head, ade, "unused", *more)
    return Settings(path, pairs)


def counted(pairs, classes):
    """(mIoU, mAcc, aAcc) of (predicted, labels), from boolean masks; absent classes are left out."""
    total = [np.concatenate([each.ravel() for each in part]) for part in zip(*pairs)]
    predicted, labels = (each[total[1] != 255] for each in total)
    ious, accuracies = [], []
    for c in range(classes):
        p, t = predicted == c, labels == c
        ious += [(p & t).sum() / (p | t).sum()] if (p | t).any() else []
        accuracies += [(p & t).sum() / t.sum()] if t.any() else []
    return np.mean(ious), np.mean(accuracies), (predicted == labels).mean()
