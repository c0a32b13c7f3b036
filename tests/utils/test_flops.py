"""What a model costs: counted by hand, against torch's counter, and against the published figures."""

import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from paddle_inline import create_model, list_models
from paddle_inline.cli.list import COUNTED_GMACS
from paddle_inline.models.factory import model_spec
from paddle_inline.utils.flops import profile

# Their built figures are of the authors' form: the kernel as three products where one does, and K1 inv(K2)
# first, where inv(K2) (K1^T v) costs m x m x d instead of N x m x m.
FEWER_PRODUCTS = {name for name in list_models() if name.startswith("soft_")}


class Sample(nn.Layer):
    """One of each thing that is counted, small enough to count by hand."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(4, 6, 3, padding=1, groups=2)
        self.line = nn.Conv1D(6, 2, 1)
        self.norm = nn.BatchNorm2D(6)
        self.fc = nn.Linear(5, 7, bias_attr=False)

    def forward(self, x):
        x = self.norm(self.conv(x))  # [1, 6, 3, 5]
        x = F.conv2d(x, paddle.ones([6, 1, 3, 3]), padding=1, groups=6)
        y = self.line(x.flatten(2))  # [1, 2, 15]
        y = paddle.matmul(y, y, transpose_x=True)  # [1, 15, 15]
        x = paddle.matmul(x, x, transpose_y=True)  # [1, 6, 3, 3]
        return self.fc(paddle.ones([3, 5])), x, y


def test_everything_is_counted_as_by_hand():
    counted = profile(Sample(), shape=(4, 3, 5))
    assert counted.params == (6 * 2 * 9 + 6) + (6 * 2 + 2) + (6 + 6) + 5 * 7
    assert counted.macs == {
        "convolution": 6 * 3 * 5 * (2 * 9) + 2 * 15 * 6,
        "conv2d": 6 * 3 * 5 * 9,
        "matmul": 15 * 15 * 2 + 6 * 3 * 3 * 5,
        "Linear": 3 * 7 * 5,
    }
    assert counted.total == sum(counted.macs.values())


class Broken(nn.Linear):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("broken")


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_as_it_was_even_if_it_breaks(training):
    before = paddle.matmul, F.conv2d
    model = Broken(4, 4)
    model.training = training
    with pytest.raises(RuntimeError, match="broken"):
        profile(model, shape=(4,))
    assert (paddle.matmul, F.conv2d) == before
    assert model.training == training
    assert not model._forward_post_hooks


def torch_macs(name):
    """Multiply-adds by torch's own counter, of the twin."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    import torch_ref

    model = torch_ref.create_model(name).eval()
    size = model.spec.img_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, model.spec.in_chans, size, size))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", [name for name in list_models() if name.endswith("_digits")])
def test_small_models_against_torchs_counter(name):
    assert profile(create_model(name)).total == torch_macs(name)


@pytest.mark.full
@pytest.mark.parametrize("name", list_models())
def test_every_model_is_what_its_configuration_builds(name):
    counted, figures = profile(create_model(name)), model_spec(name).published
    if figures.built_params is not None:
        assert round(counted.params / 1e6, 3) == figures.built_params
    if figures.built_gmacs is not None:
        low = 0.9 if name in FEWER_PRODUCTS else 0.99
        assert low * figures.built_gmacs < counted.total / 1e9 < 1.01 * figures.built_gmacs
    assert name not in COUNTED_GMACS or round(counted.total / 1e9, 3) == COUNTED_GMACS[name]
    assert counted.total == torch_macs(name)
