"""Segmenters on any backbone of four maps: UPerNet and Semantic FPN, as their papers build them.

B batch, C channels, K classes, H x W pixels; map i of a backbone has a side of H / (4 * 2^i), rounded up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Optional, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ..layers.batch_norm import BatchNorm2d
from ..utils.errors import UserError

Path = Optional[Union[str, "os.PathLike[str]"]]


def name_of(model: nn.Layer) -> str:
    """Return what a segmenter, ours or the toolkit's, is called in messages and checkpoints."""
    return getattr(model, "name", type(model).__name__)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Return x [B, C, h, w] bilinearly at the height and width of `like`; corners are not aligned."""
    size = [int(side) for side in like.shape[2:]]
    return x if list(x.shape[2:]) == size else F.interpolate(x, size, mode="bilinear")


class ConvNormReLU(nn.Sequential):
    """A convolution without bias that keeps the size, a norm and ReLU.

    Args:
        channels: in, out.
        kernel: its side, odd.
        groups: of GroupNorm; None: batch normalisation, whose statistics are of all ranks in training.
    """

    def __init__(self, channels: tuple[int, int], kernel: int, groups: int | None = None) -> None:
        norm = BatchNorm2d(channels[1]) if groups is None else nn.GroupNorm(groups, channels[1])
        conv = nn.Conv2D(*channels, kernel, padding=kernel // 2, bias_attr=False)
        super().__init__(("conv", conv), ("norm", norm), ("relu", nn.ReLU()))


def plain_conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2D:
    """Return a convolution with bias that no ReLU follows: Glorot's uniform weights (Lin et al., 2017)."""
    weights = paddle.ParamAttr(initializer=nn.initializer.XavierUniform())
    return nn.Conv2D(inputs, outputs, kernel, padding=kernel // 2, weight_attr=weights)


class Classifier(nn.Sequential):
    """Dropout of whole channels and a 1 x 1 convolution: [B, C, H, W] -> logits [B, K, H, W]."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        weights = paddle.ParamAttr(initializer=nn.initializer.Normal(std=0.01))
        conv = nn.Conv2D(channels, num_classes, 1, weight_attr=weights)
        super().__init__(("dropout", nn.Dropout2D(dropout)), ("conv", conv))


class Segmenter(nn.Layer):
    """A backbone and what makes logits of its maps; the toolkit's form of a model.

    Images [B, 3, H, W] -> a list of logits [B, K, H, W]: of the head and, in train mode, of the auxiliary head
    where there is one.

    Args:
        backbone: a layer from images to four maps, with `feat_channels`.
        num_classes: K.
        pretrained: weights of the whole segmenter, loaded strictly; the backbone's own go to its `pretrained`.

    Raises:
        UserError: another number of maps, or weights that do not fit, with the difference.
    """

    def __init__(self, backbone: nn.Layer, num_classes: int) -> None:
        super().__init__()
        channels = list(backbone.feat_channels)
        if len(channels) != 4:
            raise UserError(
                f"{type(self).__name__} takes four maps and the backbone gives {len(channels)}: leave out_indices out"
            )
        if num_classes < 1:
            raise UserError(f"num_classes is {num_classes}; it counts classes and starts at 1")
        self.backbone, self.num_classes, self.channels = backbone, num_classes, channels
        self.name = f"{type(self).__name__} of {name_of(backbone)}"

    def load(self, pretrained: Path) -> None:
        """Load the weights of a whole segmenter, if a file is given; errors as for the class."""
        if pretrained:
            from .weights import load_segmenter

            load_segmenter(self, pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone(images)
        return [resize(logits, like=images) for logits in self.logits_of(maps)]

    def logits_of(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return logits [B, K, h, w] of four maps, the auxiliary head's last."""
        raise NotImplementedError


class PyramidPooling(nn.Layer):
    """PSPNet's pooling module (Zhao et al., CVPR 2017): means over 1, 4, 9 and 36 fields beside the map itself."""

    def __init__(self, inputs: int, channels: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.stages = nn.LayerList([ConvNormReLU((inputs, channels), 1) for _ in scales])
        self.bottleneck = ConvNormReLU((inputs + len(scales) * channels, channels), 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            resize(stage(F.adaptive_avg_pool2d(x, scale)), like=x)
            for scale, stage in zip(self.scales, self.stages)
        ]
        return self.bottleneck(paddle.concat([x, *pooled], axis=1))


class UperNet(Segmenter):
    """UPerNet (Xiao et al., ECCV 2018): pyramid pooling on the last map, a feature pyramid of 512 channels, all of
    its maps together at stride 4; an auxiliary fully convolutional head on the third map in training.

    Args:
        backbone, num_classes, pretrained: see `Segmenter`.
        channels: of the pyramid.
        pool_scales: fields along a side of the pooling module.
        auxiliary: whether there is an auxiliary head; its loss is weighed by `loss.coef` of the settings.
        auxiliary_channels: of that head.
        dropout: of channels before the classifiers.
    """

    def __init__(
        self,
        backbone: nn.Layer,
        num_classes: int,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        auxiliary: bool = True,
        auxiliary_channels: int = 256,
        dropout: float = 0.1,
        pretrained: Path = None,
    ) -> None:
        super().__init__(backbone, num_classes)
        *finer, coarsest = self.channels
        self.pooling = PyramidPooling(coarsest, channels, pool_scales)
        self.laterals = nn.LayerList([ConvNormReLU((of, channels), 1) for of in finer])
        self.outputs = nn.LayerList([ConvNormReLU((channels, channels), 3) for _ in finer])
        self.fusion = ConvNormReLU((4 * channels, channels), 3)
        self.classifier = Classifier(channels, num_classes, dropout)
        self.auxiliary = None
        if auxiliary:
            self.auxiliary = nn.Sequential(
                ConvNormReLU((self.channels[2], auxiliary_channels), 3),
                Classifier(auxiliary_channels, num_classes, dropout),
            )
        self.load(pretrained)

    def logits_of(self, maps: Sequence[Tensor]) -> list[Tensor]:
        pyramid = [lateral(x) for lateral, x in zip(self.laterals, maps)] + [self.pooling(maps[-1])]
        for i in (2, 1, 0):
            pyramid[i] = pyramid[i] + resize(pyramid[i + 1], like=pyramid[i])
        finest = [output(x) for output, x in zip(self.outputs, pyramid)] + [pyramid[-1]]
        together = paddle.concat([resize(x, like=finest[0]) for x in finest], axis=1)
        logits = [self.classifier(self.fusion(together))]
        if self.training and self.auxiliary is not None:
            logits.append(self.auxiliary(maps[2]))
        return logits


class SemanticFPN(Segmenter):
    """Semantic FPN (Kirillov et al., CVPR 2019): a feature pyramid of 256 channels, each of its maps brought to
    stride 4 by convolutions of 128 channels, GroupNorm, ReLU and bilinear doubling; their sum is classified.

    Args:
        backbone, num_classes, pretrained: see `Segmenter`.
        pyramid_channels: of the feature pyramid (Lin et al., CVPR 2017: nearest neighbours on the way down).
        channels: of the head.
        groups: of GroupNorm.
        dropout: of channels before the classifier; the paper has none.
    """

    def __init__(
        self,
        backbone: nn.Layer,
        num_classes: int,
        pyramid_channels: int = 256,
        channels: int = 128,
        groups: int = 32,
        dropout: float = 0.0,
        pretrained: Path = None,
    ) -> None:
        super().__init__(backbone, num_classes)
        self.laterals = nn.LayerList([plain_conv(of, pyramid_channels, 1) for of in self.channels])
        self.outputs = nn.LayerList(
            [plain_conv(pyramid_channels, pyramid_channels, 3) for _ in self.channels]
        )
        # map i is doubled i times, each time behind a convolution; map 0 has one convolution all the same
        self.scales = nn.LayerList(
            [
                nn.LayerList(
                    [
                        ConvNormReLU((channels if step else pyramid_channels, channels), 3, groups)
                        for step in range(max(doublings, 1))
                    ]
                )
                for doublings in range(4)
            ]
        )
        self.classifier = Classifier(channels, num_classes, dropout)
        self.load(pretrained)

    def logits_of(self, maps: Sequence[Tensor]) -> list[Tensor]:
        pyramid = [lateral(x) for lateral, x in zip(self.laterals, maps)]
        for i in (2, 1, 0):
            size = [int(side) for side in pyramid[i].shape[2:]]
            pyramid[i] = pyramid[i] + F.interpolate(pyramid[i + 1], size, mode="nearest")
        pyramid = [output(x) for output, x in zip(self.outputs, pyramid)]
        total = self.scales[0][0](pyramid[0])
        for i in (1, 2, 3):
            x = pyramid[i]
            for step, conv in enumerate(self.scales[i]):
                x = resize(conv(x), like=pyramid[i - step - 1])
            total = total + x
        return [self.classifier(total)]
