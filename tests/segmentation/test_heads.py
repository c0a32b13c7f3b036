"""Heads of segmenters, on a backbone of four convolutions: sizes, parameter counts, what has a part in the answer."""

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_inline.layers.basic import meta_init
from paddle_inline.segmentation.heads import Segmenter, SemanticFPN, UperNet, resize
from paddle_inline.utils.errors import UserError

WIDTHS = {"pvt": (64, 128, 320, 512), "swin": (96, 192, 384, 768)}


class Maps(nn.Layer):
    """Four maps of an image, each a side of H / stride, rounded up."""

    def __init__(self, channels=(4, 6, 8, 10)):
        super().__init__()
        self.feat_channels = list(channels)
        steps = zip((3, *channels), channels, (4, 2, 2, 2))
        self.convs = nn.LayerList([nn.Conv2D(a, b, s, stride=s) for a, b, s in steps])

    def forward(self, x):
        maps = []
        for conv, stride in zip(self.convs, (4, 2, 2, 2)):
            rest = [-side % stride for side in x.shape[2:]]
            x = conv(nn.functional.pad(x, [0, rest[1], 0, rest[0]]))
            maps.append(x)
        return maps


SMALL = {
    UperNet: {"channels": 8, "auxiliary_channels": 6, "dropout": 0.0},
    SemanticFPN: {"pyramid_channels": 8, "channels": 4, "groups": 2},
}
heads = pytest.mark.parametrize("head", SMALL, ids=lambda head: head.__name__)


def count(layer, but=()):
    named = [(name, p) for name, p in layer.named_parameters() if not p.stop_gradient]
    return sum(int(np.prod(p.shape)) for name, p in named if not name.startswith(but))


def normed(inputs, outputs, kernel):
    return kernel**2 * inputs * outputs + 2 * outputs


def upernet(c1, c2, c3, c4):
    pooling = 4 * normed(c4, 512, 1) + normed(c4 + 4 * 512, 512, 3)
    pyramid = sum(normed(c, 512, 1) for c in (c1, c2, c3)) + 3 * normed(512, 512, 3) + normed(4 * 512, 512, 3)
    return pooling + pyramid + 513 * 150 + normed(c3, 256, 3) + 257 * 150


def semantic_fpn(*channels):
    pyramid = sum(256 * c + 256 for c in channels) + 4 * (9 * 256 * 256 + 256)
    return pyramid + 4 * normed(256, 128, 3) + 3 * normed(128, 128, 3) + 129 * 150


@pytest.mark.parametrize(
    ("head", "width", "formula", "millions"),
    [
        (UperNet, "swin", upernet, 32.4),
        (UperNet, "pvt", upernet, 30.5),
        (SemanticFPN, "pvt", semantic_fpn, 4.3),
    ],
)
def test_the_heads_have_the_papers_sizes_for_150_classes(head, width, formula, millions):
    with meta_init():
        model = head(Maps(WIDTHS[width]), num_classes=150)
    assert count(model, but=("backbone",)) == formula(*WIDTHS[width])
    assert round(count(model, but=("backbone",)) / 1e6, 1) == millions


@heads
@pytest.mark.parametrize("size", [(64, 64), (33, 77), (130, 32)])
def test_logits_are_as_large_as_the_images(head, size):
    model = head(Maps(), 5, **SMALL[head])
    images = paddle.randn([2, 3, *size])
    assert [each.shape for each in model(images)] == [[2, 5, *size]] * (2 if head is UperNet else 1)
    model.eval()
    assert [each.shape for each in model(images)] == [[2, 5, *size]]


@heads
def test_every_parameter_has_a_part_in_training(head):
    model = head(Maps(), 5, **SMALL[head])
    sum(each.square().sum() for each in model(paddle.randn([2, 3, 64, 96]))).backward()
    trained = [(name, p) for name, p in model.named_parameters() if not p.stop_gradient]
    assert not [name for name, p in trained if p.grad is None or not p.grad.abs().sum().item()]


@heads
def test_every_map_has_a_part_in_the_answer(head):
    model = head(Maps(), 5, **SMALL[head])
    model.eval()
    maps = model.backbone(paddle.randn([1, 3, 64, 64]))
    for i in range(4):
        changed = [x + 1.0 if i == place else x for place, x in enumerate(maps)]
        differ = (model.logits_of(changed)[0] - model.logits_of(maps)[0]).abs().max().item()
        assert differ > 1e-5, f"map {i}"


def test_semantic_fpn_doubles_a_map_as_often_as_it_is_coarse():
    model = SemanticFPN(Maps(), 5, **SMALL[SemanticFPN])
    assert [len(scale) for scale in model.scales] == [1, 1, 2, 3]
    assert [type(scale[0].norm).__name__ for scale in model.scales] == ["GroupNorm"] * 4


def test_the_logits_of_semantic_fpn_are_the_sum_over_its_maps():
    model = SemanticFPN(Maps(), 5, **SMALL[SemanticFPN])
    for conv in model.laterals:  # then each map of the pyramid is that of a single level
        conv.weight.set_value(paddle.zeros_like(conv.weight))
    model.eval()
    logits = model.logits_of(model.backbone(paddle.randn([1, 3, 64, 64])))[0]
    total = paddle.zeros([1, 4, 16, 16])
    for level, (output, scale) in enumerate(zip(model.outputs, model.scales)):
        x = paddle.zeros([1, 8, 16 // 2**level, 16 // 2**level])
        for other in range(level, 4):  # biases of this level and of all coarser ones
            x = x + model.laterals[other].bias.reshape([1, -1, 1, 1])
        x = output(x)
        for conv in scale:
            x = conv(x)
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear") if level else x
        total = total + x
    np.testing.assert_allclose(logits.numpy(), model.classifier(total).numpy(), atol=1e-5)


def test_resize_does_not_align_corners():
    x = paddle.to_tensor([[[[0.0, 1.0]]]])
    assert resize(x, like=paddle.zeros([1, 1, 1, 4])).flatten().tolist() == [0, 0.25, 0.75, 1]
    assert resize(x, like=x) is x


def test_another_number_of_maps_or_classes_is_refused():
    with pytest.raises(UserError, match="takes four maps and the backbone gives 3"):
        UperNet(Maps((4, 6, 8)), 5)
    with pytest.raises(UserError, match="num_classes is 0"):
        Segmenter(Maps(), 0)


@heads
def test_a_whole_segmenter_loads_strictly(head, tmp_path):
    first, second = (head(Maps(), 5, **SMALL[head]) for _ in range(2))
    paddle.save(first.state_dict(), str(tmp_path / "model.pdparams"))
    loaded = head(Maps(), 5, **SMALL[head], pretrained=tmp_path / "model.pdparams")
    for name, value in first.state_dict().items():
        assert (loaded.state_dict()[name] == value).all().item(), name
    assert count(first) == count(second)
    paddle.save(first.backbone.state_dict(), str(tmp_path / "backbone.pdparams"))
    with pytest.raises(UserError, match=r"(?s)names or shapes differ.*model\.backbone\.pretrained"):
        second.load(tmp_path / "backbone.pdparams")
