"""What runs an exported program, behind one call: Paddle Inference, OpenVINO, ONNX Runtime; or the model.

An engine takes images [B, C, H, W] float32 of numpy and gives logits [B, classes] float32 of numpy. No engine
may be called by two threads at once, for they keep their inputs and outputs between calls; OpenVINO's may, and runs as
many calls at once as it has streams.

(A few lines above 300: one class an engine, behind one call, with the reasons for what each is told.)
"""

from __future__ import annotations

import numbers
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.cores import available_cores
from ..utils.errors import MissingFileError, MissingPackageError, UserError, counted, unknown
from ..utils.paths import home_for_libraries
from .openvino_graph import openvino_core, simplify

if TYPE_CHECKING:
    import paddle

Engine = Callable[[np.ndarray], np.ndarray]
PRECISIONS = ("fp32", "bf16")
INT8 = "int8"  # of an export that holds a program in it (`int8.py`), in OpenVINO
AUTO = "auto"  # bfloat16 where the processor multiplies it and an export was found to keep its classes in it
NO_BFLOAT16 = "this processor has no bfloat16 multiplication: what is asked for in bf16 runs in float32"
# Passes of Paddle 3.3 for oneDNN that break programs which are right without them.
BROKEN_PASSES = (
    # moves a reshape into the transpose before it and loses its shape: CSwin does not load, nor does anything
    # in bfloat16
    "operator_reshape_onednn_fuse_pass",
    # adds inside a matrix product, in a reference kernel forty times as slow, and behind a fused transpose in
    # the wrong order: CSwin is off by 0.2. (The other families' forms give it nothing to fuse.)
    "matmul_elementwise_add_fuse_pass",
)
ONEDNN_SHAPES = 16  # input shapes for which oneDNN keeps its prepared kernels


class PaddleEngine:
    """A program of `paddle.jit.save` in Paddle Inference.

    With oneDNN, Paddle's compiled kernels print a line each to standard output at the first run; nothing in
    Paddle turns that off. The library leaves the process's streams alone; programs that want a clean output
    redirect them themselves (`cli.output.stdout_to_null`).

    Args:
        program: `.json` (Paddle 3) or `.pdmodel` (Paddle 2).
        params: `.pdiparams`.
        device: "cpu", "gpu" or "gpu:1".
        threads: CPU threads; None: the cores this process may use.
        precision: "fp32", or "bf16" for oneDNN's bfloat16 kernels (CPU) or Paddle's mixed ones (GPU). A CPU without
            AVX-512 runs float32 for it, with a warning.
        onednn: whether oneDNN's kernels and fusions are used on a CPU.

    Raises:
        UserError: a precision or device that does not exist, or a program that this Paddle cannot read.
    """

    def __init__(
        self,
        program: str | Path,
        params: str | Path,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "fp32",
        onednn: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        check_device(device)
        check_gpu(device)
        check_readable(program)
        from paddle import inference

        config = inference.Config(str(program), str(_existing(params)))
        config.disable_glog_info()
        kind, _, index = device.partition(":")
        if kind == "gpu":
            kinds = inference.PrecisionType
            on_gpu = kinds.Bfloat16 if precision == "bf16" else kinds.Float32
            config.enable_use_gpu(256, int(index or 0), on_gpu)  # MiB of memory to begin with
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads or available_cores())
            _use_onednn(config, onednn, precision)
        self.predictor = inference.create_predictor(config)
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        self.output = self.predictor.get_output_handle(self.predictor.get_output_names()[0])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images, np.float32)
        self.input.reshape(images.shape)
        self.input.copy_from_cpu(images)
        self.predictor.run()
        return self.output.copy_to_cpu()


def _use_onednn(config: Any, onednn: bool, precision: str) -> None:
    if not onednn:
        if precision == "bf16":
            raise UserError("bf16 on a CPU needs oneDNN; use precision fp32 with oneDNN off")
        if hasattr(config, "disable_mkldnn"):
            config.disable_mkldnn()  # Paddle 3 turns it on by itself
        return
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(ONEDNN_SHAPES)
    if precision == "bf16":
        if lacks_bfloat16("paddle"):
            warnings.warn(NO_BFLOAT16, stacklevel=3)
        config.enable_mkldnn_bfloat16()
    for name in BROKEN_PASSES:
        config.delete_pass(name)


class OnnxEngine:
    """An ONNX file, or its bytes, in ONNX Runtime, on the CPU.

    Args:
        program: `.onnx`, or the bytes of one.
        threads: CPU threads; None: the cores this process may use.

    Raises:
        MissingPackageError: ONNX Runtime is not installed.
        MissingFileError: no such file.
    """

    def __init__(self, program: str | Path | bytes, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingPackageError("ONNX Runtime is not installed: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_cores()
        options.log_severity_level = 3
        source = program if isinstance(program, bytes) else str(_existing(program))
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.input: np.ascontiguousarray(images, np.float32)})[0]


class OpenVinoEngine:
    """An ONNX file in OpenVINO, on the CPU.

    A program whose every shape is known fuses more, and filters the local residual by one convolution
    (`openvino_graph`). So the first batch sizes that come are compiled for, each when it comes (about a second),
    and all later ones share the any-batch program.

    Args:
        program: `.onnx`.
        threads: CPU threads; None: the cores this process may use.
        precision: "fp32", or "bf16" for matrix products and what follows them in bfloat16, on processors that
            have such instructions; on others it is float32 all the same, with a warning.
        batches: how many batch sizes get a program of their own; each holds the weights once more.
        streams: batches that threads of the caller's may run at once, each on a part of `threads`: more images a
            second, each batch later. With 1 a batch has all threads, and a second one waits.

    Raises:
        MissingPackageError: OpenVINO is not installed.
        MissingFileError: no such file.
        UserError: a precision that does not exist, or no whole number of streams.
    """

    def __init__(
        self,
        program: str | Path,
        threads: int | None = None,
        precision: str = "fp32",
        batches: int = 4,
        streams: int = 1,
    ) -> None:
        check_streams(streams)
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        try:
            self.core = openvino_core()
        except ImportError:
            raise MissingPackageError("OpenVINO is not installed: pip install openvino") from None
        if precision == "bf16" and not multiplies_bfloat16():
            warnings.warn(NO_BFLOAT16, stacklevel=2)
        self.options = {
            "INFERENCE_NUM_THREADS": threads or available_cores(),
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "ENABLE_CPU_PINNING": False,  # other engines and processes share the cores
        }
        self.batches, self.streams = batches, streams
        self.lock = threading.Lock()
        self.program = self.core.read_model(str(_existing(program)))
        # free ones by batch size; None: any, or the one the program is for
        self.requests: dict[int | None, SimpleQueue[Any]] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images, np.float32)
        with self.lock:
            free = self._requests(len(images))
        request = free.get()
        try:
            # the images are read where they lie: they stay there until the answer is copied
            return request.infer({0: images}, share_inputs=True)[0].copy()
        finally:
            free.put(request)

    def _requests(self, batch: int | None) -> SimpleQueue[Any]:
        shape = self.program.input(0).partial_shape
        may_have_own = shape.is_dynamic and batch and len(self.requests) < self.batches
        batch = batch if batch in self.requests or may_have_own else None
        if batch not in self.requests:
            program = self.program.clone()
            if batch:
                shape[0] = batch
                program.reshape(shape)
            simplify(program)
            compiled = self.core.compile_model(program, "CPU", self.options)
            self.requests[batch] = SimpleQueue()
            for _ in range(self.streams):
                self.requests[batch].put(compiled.create_infer_request())
        return self.requests[batch]


def multiplies_bfloat16() -> bool:
    """Return whether OpenVINO is installed and finds instructions for bfloat16 in this processor."""
    try:
        core = openvino_core()
    except ImportError:
        return False
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def multiplies_int8(flags: str | Path = "/proc/cpuinfo") -> bool:
    """Return whether this processor has instructions for sums of int8 products; where that is not known, True."""
    words = _words(flags)
    return not words or bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & words)


def lacks_bfloat16(engine: str, flags: str | Path = "/proc/cpuinfo") -> bool:
    """Return whether engine "openvino" or "paddle", told bf16 on the CPU, runs float32 here; not known: False.

    Paddle takes oneDNN's bfloat16 where there is AVX-512, which imitates it where it cannot multiply it.
    """
    if engine == "openvino":
        return _has_openvino() and not multiplies_bfloat16()
    words = _words(flags)
    return bool(words) and not {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= words


def _has_openvino() -> bool:
    try:
        openvino_core()
    except ImportError:
        return False
    return True


def check_streams(streams: int) -> None:
    """Refuse a number of streams that is none: UserError."""
    if not isinstance(streams, numbers.Integral) or streams < 1:
        raise UserError(f"streams is {streams!r}; give a whole number from 1, which is one batch at a time")


def _words(flags: str | Path) -> set[str]:
    """Return the words of a file such as /proc/cpuinfo, none where it does not say what a processor has."""
    try:
        words = set(Path(flags).read_text().split())
    except OSError:
        return set()
    return words if {"flags", "Features"} & words else set()


class EagerEngine:
    """A model as it is, in eval mode and without gradients."""

    def __init__(self, model: paddle.nn.Layer) -> None:
        self.model = model

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import paddle

        if not paddle.in_dynamic_mode():
            raise UserError(
                "a model runs eagerly, and Paddle is in static mode: call paddle.disable_static() first"
            )
        training = [layer for layer in self.model.sublayers(include_self=True) if layer.training]
        dtype = next(iter(self.model.parameters())).dtype
        try:
            self.model.eval()
            with paddle.no_grad():
                batch = paddle.to_tensor(np.ascontiguousarray(images, np.float32)).astype(dtype)
                return self.model(batch).astype("float32").numpy()
        finally:
            for layer in training:
                layer.training = True


class CompiledEngine:
    """A model compiled in this process by `paddle.jit.to_static`, with CINN where this Paddle has it (its GPU
    builds of version 3), for any batch.

    Args:
        model: of `create_model`, on its device; it is put in eval mode and stays in it.
        precision: "fp32", or "bf16" for autocasting to bfloat16, on a GPU.

    Raises:
        UserError: bf16 on a CPU, where Paddle's eager kernels lack it.
    """

    def __init__(self, model: paddle.nn.Layer, precision: str = "fp32") -> None:
        import paddle

        on_cpu = paddle.device.get_device() == "cpu"
        if precision == "bf16" and on_cpu:
            raise UserError("autocasting to bf16 is for a GPU; on a CPU use engine openvino or paddle")
        model.eval()
        backend = "CINN" if paddle.is_compiled_with_cinn() and not on_cpu else None
        forward = paddle.jit.to_static(
            model.forward, input_spec=[input_spec(model)], full_graph=True, backend=backend
        )
        self.amp = {"enable": precision == "bf16", "dtype": "bfloat16"}
        self.forward = forward

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import paddle

        with paddle.no_grad(), paddle.amp.auto_cast(**self.amp), home_for_libraries():
            logits = self.forward(paddle.to_tensor(np.ascontiguousarray(images, np.float32)))
        return logits.astype("float32").numpy()


def input_spec(model: paddle.nn.Layer, batch: int | None = None) -> paddle.static.InputSpec:
    """Return what a traced program of a model takes: images of `batch` (None: any)."""
    import paddle

    shape = [-1 if batch is None else batch, model.spec.in_chans, *model.img_size]
    return paddle.static.InputSpec(shape, "float32", "image")


def check_device(device: str) -> None:
    """Raise UserError for what is not cpu, gpu or gpu:N."""
    if not (isinstance(device, str) and re.fullmatch(r"cpu|gpu(:\d{1,4})?", device)):
        raise UserError(f"device {device!r} must be cpu, gpu or gpu:N")


def check_gpu(device: str) -> None:
    """Refuse a GPU that is not there, which Paddle Inference would replace by the CPU without an error.

    Raises:
        UserError: this Paddle runs on CPUs alone, or there are fewer GPUs.
    """
    if device == "cpu":
        return
    import paddle

    count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if int(device.partition(":")[2] or 0) >= count:
        raise UserError(
            f"device {device!r}: Paddle sees {counted(count, 'GPU')} here"
            + (
                ""
                if paddle.is_compiled_with_cuda()
                else ", for it is a build for CPUs; install paddlepaddle-gpu"
            )
            + "; use cpu"
        )


def check_readable(program: str | Path) -> None:
    """Refuse a program that is missing or that another generation of Paddle wrote.

    Paddle 3 writes `.json` and reads both; Paddle 2 writes and reads `.pdmodel` alone.

    Raises:
        MissingFileError: no such file.
        UserError: not a program that this Paddle reads.
    """
    from paddle import __version__ as version

    program = _existing(program)
    if program.suffix not in (".json", ".pdmodel"):
        raise UserError(f"{program} is no Paddle program; those are .json (Paddle 3) or .pdmodel (Paddle 2)")
    if program.suffix == ".json" and version.startswith("2."):
        raise UserError(
            f"{program} was written by Paddle 3, this is Paddle {version}: install paddlepaddle>=3, or "
            "export the model again with this version"
        )


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no program file {path}: export the model again")
    return path
