"""How a step runs on this machine: device, precision, compiler, threads, forms of attention and of products.

An `Engine` is chosen once, when training starts, and written into every checkpoint, so a continued run takes the same
path and ends with the same bits. `settle` decides what needs no clock; what does is measured by `tinygpt.probe`.
Choosing one changes nothing: what belongs to the whole process (threads, memory, deterministic kernels) is set by
`configure_process`, which commands call and the library never does.
"""

import contextlib
import copy
import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import torch

from tinygpt.attention import FORMS
from tinygpt.model import GPT, Block

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "off")
ATTENTION = ("auto", *FORMS)
MATMUL = ("auto", "highest", "medium")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One way of running a step, with every "auto" decided."""

    device: str = "cpu"
    """Where tensors live: cpu, cuda or mps."""
    dtype: str = "float32"
    """Numbers of activations and products; master weights, gradients' sums and optimiser state are float32 always."""
    compile: bool = False
    """Whether the blocks go through torch.compile."""
    threads: int = 1
    """CPU threads of one operation. Another count gives other bits."""
    attention: str = "fused"
    """Form of attention, a name in `attention.FORMS`."""
    matmul: str = "highest"
    """What torch.set_float32_matmul_precision is given while a step runs; matters to float32 alone."""
    micro_batch: int | None = None
    """Windows in one forward pass; None takes the whole batch_size. The batch of a step does not change by it."""
    loss_chunk: int | None = None
    """Rows whose logits exist at once; None takes as many as have logits of the size of the head's weight."""
    recompute: bool = False
    """Whether a block's activations are made again in the backward pass instead of kept ("gradient checkpointing")."""
    tokens_per_second: float | None = None
    """Measured when the engine was chosen; None where nothing was."""
    memory_bytes: int | None = None
    """Peak memory of the process, measured when the engine was chosen; None where nothing was."""
    gemm_flops: float | None = None
    """Operations per second of the model's own matrix products, nothing else; None where not measured."""

    def __str__(self) -> str:
        """What was chosen, in words."""
        said = [self.device, self.dtype, "compiled" if self.compile else "not compiled", f"{self.attention} attention"]
        said += [f"{self.matmul} matmul precision"] if self.dtype == "float32" and self.matmul != "highest" else []
        said += [f"{self.micro_batch} windows at once"] if self.micro_batch else []
        said += [f"{self.loss_chunk} rows of logits at once"] if self.loss_chunk else []
        said += ["activations made again"] if self.recompute else []
        return ", ".join([*said, f"{self.threads} CPU thread{'s' * (self.threads > 1)}"])

    def scaler(self) -> torch.amp.GradScaler:
        """A loss scaler, switched on for float16 alone, whose small gradients would vanish."""
        return torch.amp.GradScaler(self.device, enabled=self.dtype == "float16")

    @contextlib.contextmanager
    def products(self) -> Iterator[None]:
        """The context in which forward and backward passes run: torch's settings of products, put back afterwards."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.matmul)
        try:
            with _fewer_activations() if self.compile else contextlib.nullcontext():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def working_copy(self, model: GPT) -> GPT:
        """`model` as this engine runs it, sharing its parameters, or with copies of them in the engine's type."""
        dtype = getattr(torch, self.dtype)
        is_shared = all(parameter.dtype == dtype for parameter in model.parameters())
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())} if is_shared else {}
        return self.prepare(copy.deepcopy(model, shared).to(dtype))

    def prepare(self, model: GPT) -> GPT:
        """`model` itself, set up for this engine's form of attention, size of chunks and compiler."""
        model.loss_chunk, model.recompute = self.loss_chunk, self.recompute
        for block in model.blocks:
            assert isinstance(block, Block)
            block.attention.form = self.attention
            if self.compile:
                # One block at a time: all are one program, compiled once.
                block.compile(dynamic=False)
        return model

    def peak_memory_bytes(self) -> int | None:
        """Most memory held so far: of the device on CUDA, else of the process; None where nobody knows."""
        if self.device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes, Linux KiB
        return max(peak, self.held_memory_bytes() or 0)  # Linux adds some pages up later than others

    def held_memory_bytes(self) -> int | None:
        """Memory held now: of the device on CUDA, else of the process (RSS); None where the system does not say."""
        if self.device == "cuda":
            return int(torch.cuda.memory_allocated())
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # not Linux
            return None


def settle(
    *,
    device: str = "auto",
    dtype: str = "auto",
    compile: str = "auto",
    threads: int | None = None,
    attention: str = "auto",
    matmul: str = "auto",
    micro_batch: int | None = None,
    loss_chunk: int | None = None,
    recompute: bool = False,
) -> Engine:
    """The engine for this machine without measuring: each "auto" is what runs everywhere; the process is left as it is.

    Args:
        device: auto takes CUDA where there is a device, then Apple's mps, then the CPU.
        dtype: auto is float32 on the CPU and on mps, bfloat16 on CUDA devices that have it. float16 also scales the
            loss and needs CUDA.
        compile: auto is off.
        threads: CPU threads; None takes the number that torch is set to.
        attention: auto is fused.
        matmul: auto is highest.
        micro_batch: Windows in one forward pass.
        loss_chunk: Rows whose logits exist at once.
        recompute: Whether blocks make their activations again in the backward pass.

    Raises:
        ValueError: A name is unknown, or this machine cannot do what it asks.

    Example:
        >>> str(settle(device="cpu", threads=2))
        'cpu, float32, not compiled, fused attention, 2 CPU threads'
    """
    named = {"device": (device, DEVICES), "dtype": (dtype, DTYPES), "compile": (compile, COMPILE)}
    for name, (value, known) in {**named, "attention": (attention, ATTENTION), "matmul": (matmul, MATMUL)}.items():
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value}")
    for name, number in (("threads", threads), ("micro_batch", micro_batch), ("loss_chunk", loss_chunk)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if here["cuda"] else "mps" if here["mps"] else "cpu"
    if not here[device]:
        raise ValueError(f"device {device}: torch {torch.__version__} sees none on this machine; use device cpu")
    if dtype == "auto":
        has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if has_bfloat16 else "float32"
    if dtype == "float16" and device != "cuda":
        raise ValueError(f"dtype float16 needs a CUDA device, and this run is on {device}; use float32 or bfloat16")
    return Engine(
        device=device,
        dtype=dtype,
        compile=compile == "on",
        threads=threads or torch.get_num_threads(),
        attention="fused" if attention == "auto" else attention,
        matmul="highest" if matmul == "auto" else matmul,
        micro_batch=micro_batch,
        loss_chunk=loss_chunk,
        recompute=recompute,
    )


def _fewer_activations() -> contextlib.AbstractContextManager[None]:
    """What compiled blocks keep for the backward pass: 0.8 of it makes activation functions again instead.

    That spares 200 MB of 1,690 and no measurable time (42 M parameters, 12 windows of 256); 0.4 costs a tenth.
    """
    import torch._functorch.config as compiler  # not there by itself, and slow to import for who does not compile

    return compiler.patch(activation_memory_budget=0.8)  # type: ignore[no-any-return]


def configure_process(engine: Engine) -> None:
    """Sets what an engine needs of the whole process: threads, memory and deterministic kernels. For commands.

    Without it a run works, but is bit for bit repeatable only where torch happens to be so by itself. On CUDA an
    operation that has no deterministic form warns instead of failing. Call it before the first CUDA operation.

    Example:
        >>> configure_process(Engine(threads=torch.get_num_threads()))
        >>> torch.are_deterministic_algorithms_enabled()
        True
    """
    torch.set_num_threads(engine.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=engine.device != "cpu")
    # A debugging aid that writes every new tensor twice; torch's own types do not know it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Lets glibc keep what is freed: by itself it gives each large tensor back, and every new page is cleared anew."""
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 << 20)


def environment(engine: Engine) -> dict[str, str | int]:
    """Versions and machine, for the record in a checkpoint: facts, compared with nothing."""
    device = torch.cuda.get_device_name() if engine.device == "cuda" else platform.processor() or platform.machine()
    return {
        "tinygpt": version("tinygpt"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "cpus": os.cpu_count() or 1,
    }
