"""Steps that do not wait for the device: what is read when, and what a bad step leaves until then.

(Above 300 lines: each of these is tried with every optimizer, alone and together.)
"""

import contextlib

import numpy as np
import paddle
import pytest

from paddle_inline.config.schema import Config, GpuConfig
from paddle_inline.training import build_gpu, loop, reading
from paddle_inline.training.build import amp_arguments
from paddle_inline.training.callbacks import Callback
from paddle_inline.training.diagnose import NotFinite
from paddle_inline.training.ema import Ema
from paddle_inline.training.evaluate import Accuracy, evaluate
from paddle_inline.training.flat import Flat, FlatAdamW
from paddle_inline.training.loop import Components, FitOptions, fit, train_step
from paddle_inline.training.losses import make_loss
from paddle_inline.training.optim import (
    clip_gradients,
    decay_groups,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)
from paddle_inline.training.reading import Stopping
from paddle_inline.training.scaling import LossScaler
from paddle_inline.training.state import Progress
from paddle_inline.utils import compiled
from paddle_inline.utils.errors import UserError

RNG = np.random.RandomState(0)
IMAGES = RNG.standard_normal((8, 6)).astype("float32")
LABELS = RNG.randint(0, 3, 8)
READS = ("item", "numpy", "tolist", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__")


def batch(k=0):
    index = (np.arange(4) + k) % 8
    return paddle.to_tensor(IMAGES[index]), paddle.to_tensor(LABELS[index])


def net():
    paddle.seed(3)
    return paddle.nn.Sequential(paddle.nn.Linear(6, 5), paddle.nn.BatchNorm1D(5), paddle.nn.Linear(5, 3))


@contextlib.contextmanager
def counted_reads():
    """Yield a list of the reads of any tensor's value."""
    found, before = [], {name: getattr(paddle.Tensor, name) for name in READS}
    for name, method in before.items():

        def counted(self, *args, _name=name, _method=method, **more):
            found.append(_name)
            return _method(self, *args, **more)

        setattr(paddle.Tensor, name, counted)
    try:
        yield found
    finally:
        for name, method in before.items():
            setattr(paddle.Tensor, name, method)


class Told(Callback):
    def __init__(self, seen=lambda: None):
        self.bad, self.skipped, self.seen, self.at_step = [], [], seen, []

    def on_bad_step(self, progress, step):
        self.bad.append((progress.step, step.loss))

    def on_skipped_step(self, progress, step):
        self.skipped.append(progress.step)

    def on_step_end(self, progress, step):
        self.at_step.append(self.seen())


def run(model=None, *, optimizer=None, loss_fn=None, load=None, steps=9, told=None, progress=None, **more):
    model = model or net()
    parts = {key: more.pop(key) for key in ("ema", "scaler", "mixup") if key in more}
    optimizer = optimizer or make_optimizer("adamw", model, decay_groups(model, 0.05))
    whole = Components(
        model,
        model,
        optimizer,
        load=load or (lambda epoch, skip: [batch(k) for k in range(100)][skip:]),
        loss_fn=loss_fn or make_loss(False, 0.1),
        schedule=lambda step: 1e-2,
        validate=lambda: Accuracy(50.0, 100.0, 4),
        **parts,
    )
    fit(whole, progress or Progress(), FitOptions(1, steps, **more), [told or Told()])
    return model, optimizer


def optimizer_of(model, name):
    fused = name == "fused"
    return make_optimizer("adamw" if fused else name, model, decay_groups(model, 0.05), fused=fused)


def tensors(model, optimizer, ema=None):
    """All of a run's state as {name: array}."""
    found = {name: value.numpy() for name, value in model.state_dict().items() if "_mean" not in name}
    found = {name: value for name, value in found.items() if "_variance" not in name}
    for name, slots in optimizer_state(model, optimizer).items():
        found.update({f"{name}/{slot}": value for slot, value in slots.items()})
    averages = {} if ema is None else {k: v for k, v in ema.average.items() if "_mean" not in k}
    found.update({f"ema {k}": v.numpy() for k, v in averages.items() if "_variance" not in k})
    return {name: value.copy() for name, value in found.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


OPTIMIZERS = ["adamw", "fused", "adam", "sgd"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_nothing_is_read_between_two_prints(name, scaled, accumulation):
    """With an average, clipping and mixed precision; `print_freq` is 4, the epoch's end the 9th step."""
    model = net()
    optimizer = optimizer_of(model, name)
    train_step(model, optimizer, [batch()], make_loss(False, 0.1), 1e-2)  # the slots of the first step
    given = dict(ema=Ema(model, 0.9, fused=name == "fused"), clip=0.5, accumulation=accumulation)
    if scaled:
        given.update(scaler=LossScaler(16.0), amp={"enable": False})
    with counted_reads() as reads:
        told = Told(lambda: len(reads))
        run(model, optimizer=optimizer, print_freq=4, told=told, steps=9, **given)
    first = told.at_step[0]  # (making the flat tensors compares the powers of the betas)
    if name != "fused":
        assert first == 0
    assert told.at_step[:3] == [first] * 3
    assert told.at_step[3] - first == 1 and told.at_step[4:7] == [first + 1] * 3
    assert told.at_step[7:] == [first + 2, first + 3]


def test_the_counter_of_reads_sees_them():
    with counted_reads() as reads:
        one = paddle.ones([])
        one.item(), one.numpy(), one.tolist(), bool(one), one.__float__(), one.__int__()
    assert {"item", "numpy", "tolist", "__bool__", "__float__", "__int__"} <= set(reads)
    told = Told()
    told.on_step_end = lambda progress, step: step.loss  # a callback that asks does wait
    with counted_reads() as reads:
        run(told=told, steps=3, print_freq=3)
    assert len(reads) >= 3


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_bad_step_leaves_weights_slots_and_average(name, scaled):
    """The first, and one among others: as if the step had not been there."""
    results = []
    for pattern in ("..x.x", "..."):
        model = net()
        model.eval()  # (batch statistics belong to the forward pass)
        optimizer, ema = optimizer_of(model, name), Ema(model, 0.9, fused=name == "fused")
        scaler = LossScaler(8.0, decr_ratio=1.0) if scaled else None
        good = 0
        for kind in "x" * (pattern == "..x.x") + pattern:
            loss_fn = make_loss(False, 0.1)
            if kind == "x":
                loss_fn = lambda *given: make_loss(False, 0.1)(*given) * float("inf")  # noqa: E731
            taken = train_step(
                model, optimizer, [batch(good)], loss_fn, 1e-2, clip=0.5, scaler=scaler, wait=False
            )
            ema.go = taken.taken
            ema.update(model)
            good += kind == "."
            assert bool(taken.taken) == (kind == ".") and np.isfinite(taken.loss.item()) == (kind == ".")
        results.append(tensors(model, optimizer, ema))
    same(*results)
    assert all(np.isfinite(value).all() for value in results[0].values())


@pytest.fixture
def paddles_kernels():
    """Without the loop of Numba for AdamW, which has the bits of Paddle's kernel for AVX-512 alone."""
    with compiled.paused():
        yield


@pytest.mark.usefixtures("paddles_kernels")
@pytest.mark.parametrize("half", [False, True])
def test_one_kernel_for_all_tensors_gives_the_same_bits(half):
    """Of AdamW and of the average, in float32 and float64, with a resume by name in the middle."""
    if half:
        paddle.set_default_dtype("float64")
    results, state = [], {}
    for fused in (False, True):
        model = net()
        ema = Ema(model, 0.9, fused=fused)
        for part in range(2):
            optimizer = optimizer_of(model, "fused" if fused else "adamw")
            if part:
                load_optimizer_state(model, optimizer, state)
            for k in range(3):
                images, labels = batch(k)
                images = images.astype(paddle.get_default_dtype())
                train_step(model, optimizer, [(images, labels)], make_loss(False, 0.1), 1e-2, clip=0.5)
                ema.update(model, k + 1)
            state = optimizer_state(model, optimizer)
            assert (optimizer.flat is not None and len(optimizer.flat.parts) == 2) == fused
        results.append({**tensors(model, optimizer, ema), **{str(k): v for k, v in enumerate(state)}})
        native = optimizer.state_dict()
        assert len([key for key in native if "beta1_pow_acc" in key]) == 6  # Paddle's own form is whole
        results[-1].pop("0")
    arrays = [{k: v for k, v in each.items() if isinstance(v, np.ndarray)} for each in results]
    same(*arrays)


@pytest.mark.usefixtures("paddles_kernels")
def test_where_the_tensors_cannot_go_together_each_goes_alone():
    """A parameter without a gradient, and one that has taken fewer steps: as AdamW does it."""
    results = []
    for name in ("adamw", "fused"):
        model = net()
        optimizer = optimizer_of(model, name)
        for k, skips in enumerate([False, True, False, False]):
            images = batch(k)[0]
            logits = model(images)
            loss = logits.sum() if not skips else model[0](images).sum()
            loss.backward()
            optimizer.set_lr(1e-2)
            loop.guarded_step(optimizer, paddle.to_tensor([True]))
            optimizer.clear_grad(set_to_zero=False)  # the next step's have none where no product was
        results.append(tensors(model, optimizer))
        if name == "fused":
            assert optimizer.flat.parts == []
    same(*results)


def test_flat_tensors_keep_values_shapes_and_places():
    values = [paddle.to_tensor(RNG.standard_normal(shape)) for shape in ((3, 2), (5,), (1,))]
    before = [value.numpy() for value in values]
    flat = Flat(values)
    assert flat.holds() and all(value.data_ptr() % 8 == 0 for value in values)
    for value, array in zip(values, before):
        np.testing.assert_array_equal(value.numpy(), array)
    paddle.assign(flat.whole * 2, output=flat.whole)
    np.testing.assert_array_equal(values[1].numpy(), 2 * before[1])
    values[0].set_value(before[0])
    assert flat.holds() and flat.whole.numpy()[:6].tolist() == before[0].ravel().tolist()
    np.testing.assert_array_equal(flat.gathered(values).numpy(), flat.whole.numpy())
    paddle.to_tensor(before[0])._share_buffer_to(values[0])
    assert not flat.holds()


def test_memory_that_was_changed_begins_anew():
    model = net()
    optimizer = optimizer_of(model, "fused")
    train_step(model, optimizer, [batch()], make_loss(False, 0.1), 1e-2)
    parts = optimizer.flat.parts
    model[0].weight.detach().clone()._share_buffer_to(model[0].weight)
    train_step(model, optimizer, [batch()], make_loss(False, 0.1), 1e-2)
    assert optimizer.flat.parts is not parts and isinstance(optimizer.flat, FlatAdamW)


def test_the_run_stops_with_the_weights_of_the_bad_losses(tmp_path):
    """Three bad losses, then good ones until the next reading: none of these is taken, and the third is explained."""
    seen, model, kept = [], net(), []

    def loss_fn(logits, labels):
        loss = make_loss(False, 0.1)(logits, labels)
        seen.append(1)
        if len(seen) == 3:
            kept.append({name: value.numpy() for name, value in model.named_parameters()})
        return loss * float("nan") if 3 <= len(seen) <= 5 else loss

    told = Told()
    with pytest.raises(NotFinite, match="loss nan at step 4, rank 0"):
        run(model, loss_fn=loss_fn, told=told, run_folder=tmp_path, print_freq=8)
    assert [step for step, _ in told.bad] == [2, 3, 4] and len(seen) == 8
    for name, value in model.named_parameters():
        if not value.stop_gradient:  # (statistics of a batch belong to the forward pass)
            np.testing.assert_array_equal(value.numpy(), kept[0][name], err_msg=name)
    shown = np.load(tmp_path / "bad_batch_rank0.npz")
    np.testing.assert_array_equal(shown["images"], batch(4)[0].numpy())
    np.testing.assert_array_equal(shown["targets"], batch(4)[1].numpy())


def test_a_batch_that_cannot_be_loaded_once_more_is_said():
    count = []

    def load(epoch, skip):
        count.append(1)
        if len(count) > 1:
            raise OSError("the disk is gone")
        return [batch(k) for k in range(100)][skip:]

    nan = lambda *given: make_loss(False, 0.1)(*given) * float("nan")  # noqa: E731
    with pytest.raises(NotFinite, match=r"at step 2, rank 0(.|\n)*once more: the disk is gone"):
        run(load=load, loss_fn=nan)


def test_what_is_read_is_what_a_wait_in_every_step_gives():
    """Loss, norm and weights, bit for bit, whatever `print_freq`."""
    results = []
    for freq in (1, 4, 100):
        rows = []
        told = Told()
        told.on_step_end = lambda progress, step, rows=rows: rows.append(step)
        model, optimizer = run(told=told, clip=0.5, accumulation=2, print_freq=freq)
        results.append(([(row.loss, row.grad_norm) for row in rows], tensors(model, optimizer)))
    for rows, state in results[1:]:
        assert rows == results[0][0]
        same(state, results[0][1])


@pytest.mark.parametrize("largest", [None, 1e-3, 1e3])
def test_the_norm_that_stays_on_the_device_is_the_number(largest):
    found = []
    for wait in (True, False):
        model = net()
        make_loss(False, 0.1)(model(batch()[0]), batch()[1]).backward()
        norm = clip_gradients(model.parameters(), largest, wait)
        found.append(
            (
                norm if wait else norm.item(),
                [p.grad.numpy() for p in model.parameters() if p.grad is not None],
            )
        )
    assert found[0][0] == found[1][0]
    for a, b in zip(*(each[1] for each in found)):
        np.testing.assert_array_equal(a, b)


def test_the_loss_scale_follows_paddles_rule():
    """After each step: scale, good and bad steps in a row, by hand; a bad step changes no weight."""
    model = net()
    optimizer = make_optimizer("sgd", model, decay_groups(model, 0.0))
    scaler = LossScaler(8.0, incr_every_n_steps=3, decr_every_n_nan_or_inf=2)
    scale, good, bad, told = 8.0, 0, 0, Told()
    for kind in "...xx.x...":
        factor = float("inf") if kind == "x" else 1.0
        loss_fn = lambda a, b, f=factor: make_loss(False, 0.1)(a, b) * f  # noqa: E731
        before = model[0].weight.numpy()
        train_step(model, optimizer, [batch()], loss_fn, 1e-2, scaler=scaler)
        good, bad = (good + 1, 0) if kind == "." else (0, bad + 1)
        if good == 3:
            scale, good = scale * 2, 0
        if bad == 2:
            scale, bad = scale / 2, 0
        state = scaler.state_dict()
        assert (state["scale"].item(), state["incr_count"], state["decr_count"]) == (scale, good, bad)
        assert (np.abs(model[0].weight.numpy() - before).max() > 0) == (kind == ".")
    again = LossScaler()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert set(state) == set(paddle.amp.GradScaler().state_dict() or state)
    infinite = lambda *g: make_loss(False, 0.1)(*g) + (model[0].weight * float("inf")).sum() * 0  # noqa: E731
    run(model, scaler=LossScaler(), loss_fn=infinite, told=told, steps=2, max_bad_losses=9)
    assert [step for step, _ in told.bad] == [0, 1]


def test_steps_that_a_scaler_skips_are_told():
    told, model = Told(), net()
    model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    run(model, scaler=LossScaler(), told=told, steps=3, max_bad_losses=1)
    assert told.skipped == [0, 1, 2] and not told.bad


class Asked(Callback):
    def __init__(self):
        self.stop = False

    def should_stop(self):
        return self.stop


@pytest.mark.parametrize(
    ("seconds", "asks"),
    [
        (0.1, [1, 10, 20, 30]),  # fast steps: with the readings alone
        (0.5, [1, 5, 9, 10, 14, 18, 20, 24, 28, 30]),  # every two seconds, and with the readings
        (30.0, list(range(1, 31))),
    ],
)
def test_ranks_ask_each_other_seldom_and_stop_together(monkeypatch, seconds, asks):
    clock, ranks, at = [0.0], [], []
    monkeypatch.setattr(reading.time, "perf_counter", lambda: clock[0])
    callbacks = [Asked(), Asked()]
    ranks = [Stopping([each], FitOptions(1, 99, world=2, print_freq=10)) for each in callbacks]
    values = []
    monkeypatch.setattr(reading, "all_reduce_largest", lambda value, world: values.append(value) or value)
    for step in range(1, 31):
        clock[0] += seconds
        assert [rank.requested(step) for rank in ranks] == [False, False]
        if values:
            at.append(step)
            assert len(values) == 2  # both ask at the same step
            values.clear()
    assert at == asks
    callbacks[1].stop = True
    for step in range(31, 99):
        clock[0] += seconds
        flags = [(1 << 40) * each.stop + int(seconds * 1e6) for each in callbacks]
        monkeypatch.setattr(reading, "all_reduce_largest", lambda value, world, flags=flags: max(flags))
        found = [rank.requested(step) for rank in ranks]
        assert found[0] == found[1]
        if found[0]:
            break
    assert (step - 30) * seconds <= 10 * seconds + 0.1 and ((step - 30) * seconds <= 5 or seconds == 30)


def test_an_evaluation_reads_once():
    model = net()
    batches = [(images, labels) for images, labels in (batch(k) for k in range(6))]
    expected = evaluate(model, batches)
    with counted_reads() as reads:
        assert evaluate(model, batches * 3).images == 72
    assert len(reads) < 10 and expected.images == 24


def test_bfloat16_is_refused_on_a_cpu():
    config = Config()
    config.amp.level = "O1"
    assert amp_arguments(config) is None  # float16: full precision, which the log says
    config.amp.dtype = "bfloat16"
    with pytest.raises(UserError, match=r"no bfloat16 matrix product(.|\n)*amp\.level=O0"):
        amp_arguments(config)
    config.amp.level = "O0"
    assert amp_arguments(config) is None


def test_what_is_set_for_a_gpu_is_named(monkeypatch):
    flags, config, fused = {}, {}, []
    known = {"FLAGS_cudnn_exhaustive_search": False, "FLAGS_conv_workspace_size_limit": 512}

    def get_flags(names):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"Flag {unknown[0]} cannot get its value through this function.")
        return {name: known[name] for name in names}

    monkeypatch.setattr(paddle, "get_flags", get_flags)
    monkeypatch.setattr(paddle, "set_flags", flags.update)
    monkeypatch.setattr(paddle.incubate.autotune, "set_config", config.update)
    monkeypatch.setattr(build_gpu, "use_fused_attention", fused.append)
    monkeypatch.setattr(build_gpu, "describe_tf32", lambda: "TF32: said")
    lines = build_gpu.prepare_gpu(GpuConfig(fused_attention=False))
    assert lines == [
        "on the GPU: prefetch 2, fused_update True, fused_attention False",
        "TF32: said",
        "set for this GPU: FLAGS_cudnn_exhaustive_search=True FLAGS_conv_workspace_size_limit=4096 "
        "incubate.autotune kernel, steps 1 to 10",
    ]
    assert flags["FLAGS_cudnn_exhaustive_search"] is True and config["kernel"]["enable"] and fused == [False]
    del known["FLAGS_conv_workspace_size_limit"]  # as in a build that has no such flag
    assert build_gpu.autotune().startswith("set for this GPU: FLAGS_cudnn_exhaustive_search=True incubate")
    assert len(build_gpu.prepare_gpu(GpuConfig(autotune=False))) == 2 and build_gpu.prepare_gpu(None) == []
