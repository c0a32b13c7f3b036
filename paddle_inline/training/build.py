"""Everything that a run is made of, built from its settings: the one module here that sees them.

What is built takes values; its own description says what they mean.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, NamedTuple

import paddle

from ..config.evaluation import evaluation_transform, fit_to_channels
from ..config.load import Config, model_name, to_dict
from ..data import sampler
from ..data.loaders import Loader
from ..data.pictures import picture_mode
from ..data.prefetch import Prefetch
from ..layers.basic import meta_init
from ..models.factory import create_model, model_spec
from ..utils.errors import UserError, counted
from ..weights.resize import load_adapted
from . import distributed
from .build_data import build_eval, build_mixup, build_split, build_train, names_digest, run_folder
from .build_gpu import gpu_options, prefetched, prepare_gpu
from .ema import Ema, total_decay
from .evaluate import evaluate
from .loop import Components, FitOptions
from .losses import make_loss
from .optim import Group, decay_groups, make_optimizer
from .plan import notes_on_limits, plan
from .scaling import LossScaler
from .schedule import make_schedule, scaled
from .state import TrainingState
from .sync_bn import synchronise


class Run(NamedTuple):
    """A run that is ready to begin, or to be resumed."""

    components: Components
    options: FitOptions
    state: TrainingState
    groups: list[Group]  # of the optimizer
    train_source: Any
    eval_source: Any
    eval_loader: Loader | Prefetch
    images_per_step: int
    plan: list[str]  # what a step will do, and how many there are, in words
    notes: list[str]  # what was left out of the data, how pretrained weights were fitted to the model


def build_run(config: Config, rank: int, world: int, train_data: Any = None) -> Run:
    """Build a run's data, model, optimizer and schedule.

    Args:
        config: the settings.
        rank, world: this process and how many there are.
        train_data: what `build_train` made of these settings before; None: it is made here.

    Raises:
        UserError: for settings that do not fit the data, the model or each other.
    """
    paddle.seed(config.seed)
    train, data = config.train, config.data
    amp = amp_arguments(config)
    gpu = gpu_options(config)
    said = prepare_gpu(gpu)
    fitted = check_images(config)
    split = build_split(config)
    source, load = train_data or build_train(config, rank, world, split)
    eval_source, eval_loader, notes = build_eval(
        config, rank, world, classes=source.classes, named=source.named, split=split
    )
    notes = list(dict.fromkeys([*said, *fitted, *source.notes, *notes]))
    held_out = prefetched(eval_loader, gpu)
    model = build_model(config, len(source.classes))
    mixup = build_mixup(config, model.overrides["num_classes"])
    batches = sampler.batches_per_epoch(len(source), data.batch_size, world, train.accumulation_steps)
    steps_per_epoch = batches // train.accumulation_steps
    images = data.batch_size * world * train.accumulation_steps
    groups = decay_groups(model, train.weight_decay)
    model, optimizer, scaler = build_optimizer(config, model, groups, amp)
    pretrained = config.model.pretrained
    if pretrained:
        notes += [f"{pretrained}: {note}" for note in load_adapted(model, pretrained)]
    ema = build_ema(config, model, images)
    if train.sync_bn:
        synchronise(model, world)
    components = Components(
        model=model,
        net=distributed.parallel(model, world),
        optimizer=optimizer,
        load=lambda epoch, skip: prefetched(load(epoch, skip), gpu),
        loss_fn=make_loss(mixup is not None, config.model.label_smoothing),
        schedule=build_schedule(config, images, steps_per_epoch),
        validate=lambda: evaluate(model, held_out, world=world),
        mixup=mixup,
        ema=ema,
        scaler=scaler,
    )
    options = FitOptions(
        epochs=train.epochs + train.cooldown_epochs,
        steps_per_epoch=steps_per_epoch,
        accumulation=train.accumulation_steps,
        clip=train.clip_grad or None,
        amp=amp,
        seed=config.seed,
        rank=rank,
        world=world,
        save_freq=config.save_freq,
        save_steps=config.save_steps,
        max_bad_losses=train.max_bad_losses,
        print_freq=config.print_freq,
        run_folder=run_folder(config),
    )
    state = TrainingState(
        model=model.name,
        overrides=model.overrides,
        steps_per_epoch=steps_per_epoch,
        images=len(source),
        image_names=names_digest(source),
        world=world,
        config=to_dict(config),
        classes=list(source.classes),
        transform=evaluation_transform(config),
    )
    return Run(
        components,
        options,
        state,
        groups,
        source,
        eval_source,
        held_out,
        images,
        plan(config, components.schedule, images, steps_per_epoch),
        [*notes, *notes_on_limits(config, images, steps_per_epoch)],
    )


def check_images(config: Config, overrides: dict[str, Any] | None = None) -> list[str]:
    """Refuse images that the model cannot take, before any is looked for, and fit the transform to its channels.

    Args:
        config: the settings.
        overrides: of `create_model`, where they are not those of the settings.

    Returns:
        What was changed in the settings, one line each.

    Raises:
        UserError: for channels that pictures have not got, or a size that the family cannot build.
    """
    picture_mode(config.model.in_chans)
    with meta_init(), paddle.utils.unique_name.guard():
        if overrides is None:
            build_model(config, 1)
        else:
            create_model(model_name(config.model.name), **overrides)
    return fit_to_channels(config)


def build_model(config: Config, classes: int) -> paddle.nn.Layer:
    """Build the model for a data set of so many classes; `.name` and `.overrides` build it again.

    Raises:
        UserError: if the settings give it fewer classes, or do not fit its family.
    """
    model = config.model
    name = model_name(model.name)
    overrides = dict(model.overrides, num_classes=model.num_classes or classes)
    known = {field.name for field in dataclasses.fields(model_spec(name))}
    size = config.data.img_size
    optional = {
        "img_size": size if isinstance(size, int) else tuple(size),
        "in_chans": model.in_chans if model.in_chans != 3 else None,
        "drop_path_rate": model.drop_path_rate,
        "drop_rate": model.drop_rate,
        "recompute": config.train.use_checkpoint,
    }
    overrides.update({key: value for key, value in optional.items() if key in known and value})
    if model.num_classes is not None and model.num_classes < classes:
        raise UserError(
            f"model.num_classes is {model.num_classes}; the data set has {counted(classes, 'class')}: give as many or "
            "more, or null for as many as it has"
        )
    built = create_model(name, **overrides)
    built.name, built.overrides = name, overrides
    return built


def amp_arguments(config: Config) -> dict[str, Any] | None:
    """Return the arguments of `auto_cast`, or None in full precision, which is what float16 means on a CPU.

    Raises:
        UserError: for bfloat16 on a CPU.
    """
    if config.amp.level == "O0":
        return None
    if paddle.device.get_device() == "cpu":
        if config.amp.dtype == "bfloat16":
            raise UserError(
                f"amp.level is {config.amp.level} with amp.dtype bfloat16, on a CPU: Paddle has no bfloat16 matrix "
                "product there for training, and its casts alone would make every step slower; leave --amp out (-o "
                "amp.level=O0) to train in float32, or train on a GPU"
            )
        return None
    return {"enable": True, "level": config.amp.level, "dtype": config.amp.dtype}


def build_optimizer(
    config: Config, model: paddle.nn.Layer, groups: list[Group], amp: dict[str, Any] | None
) -> tuple[paddle.nn.Layer, paddle.optimizer.Optimizer, LossScaler | None]:
    """Build (model, optimizer, loss scaler or None); under O2 the model's weights become 16-bit ones."""
    chosen, precision = config.train.optimizer, amp or {"level": "O0", "dtype": None}
    half, gpu = precision["level"] == "O2", gpu_options(config)
    if half:
        model = paddle.amp.decorate(models=model, level="O2", dtype=precision["dtype"])
    optimizer = make_optimizer(
        chosen.name,
        model,
        groups,
        betas=chosen.betas,
        eps=chosen.eps,
        momentum=chosen.momentum,
        multi_precision=half,
        fused=gpu is not None and gpu.fused_update,
    )
    scaled_loss = precision["dtype"] == "float16"
    return model, optimizer, LossScaler(2.0**16) if scaled_loss else None


def build_schedule(config: Config, images: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the function step -> learning rate, for so many images per step."""
    train = config.train
    others = train.lr_batch if train.lr_scaled == "all" else None
    base = scaled(train.base_lr, images, train.lr_batch)
    warmup, floor = (scaled(rate, images, others) for rate in (train.warmup_lr, train.min_lr))
    if train.lr_scheduler.name == "linear":
        floor = base / 100  # as in the authors' programs, whatever train.min_lr says
    return make_schedule(
        train.lr_scheduler.name,
        base=base,
        warmup=warmup,
        floor=floor,
        epochs=train.epochs,
        warmup_epochs=train.warmup_epochs,
        steps_per_epoch=steps_per_epoch,
        decay_epochs=train.lr_scheduler.decay_epochs,
        decay_rate=train.lr_scheduler.decay_rate,
        per=train.lr_per,
    )


def build_ema(config: Config, model: paddle.nn.Layer, images: int) -> Ema | None:
    """Build the average of the model's weights, or None where the settings ask for none."""
    if config.ema.decay is None:
        return None
    decay = total_decay(config.ema.decay, images, config.ema.lr_batch)
    gpu = gpu_options(config)
    return Ema(model, decay, warmup=config.ema.warmup, fused=gpu is not None and gpu.fused_update)


def rank_dependent_features(config: Config, model: paddle.nn.Layer) -> list[str]:
    """Return what makes a step depend on how its images are shared among ranks; empty: nothing does."""
    aug, reasons = config.aug, []
    if config.model.drop_path_rate or config.model.drop_rate:
        reasons.append("dropout and stochastic depth")
    if aug.mixup > 0 or aug.cutmix > 0 or aug.cutmix_minmax:
        reasons.append("mixup")
    if not config.train.sync_bn and any("BatchNorm" in type(m).__name__ for m in model.sublayers()):
        reasons.append("the statistics of batch normalisation without train.sync_bn")
    return reasons
