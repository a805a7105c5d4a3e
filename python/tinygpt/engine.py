"""How a step runs on this machine: device, precision, compiler, threads, and where its random numbers come from.

An `Engine` is chosen once, when training starts, and written into every checkpoint, so a continued run takes the same
path and ends with the same bits. Choosing one changes nothing: what belongs to the whole process (thread count,
deterministic kernels) is set by `configure_process`, which commands call and the library never does.
"""

import contextlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")
COMPILE = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One way of running a step, with every "auto" decided."""

    device: str = "cpu"
    """Where tensors live: cpu, cuda or mps."""
    dtype: str = "float32"
    """Numbers of the matrix products; weights and optimiser state are float32 always."""
    compile: bool = False
    """Whether the loss goes through torch.compile."""
    threads: int = 1
    """CPU threads of one operation. Another count gives other bits."""
    tokens_per_second: float | None = None
    """Speed of whole steps that was measured when the engine was chosen."""
    memory_bytes: int | None = None
    """Peak of memory expected of a run, measured likewise."""
    gemm_flops: float | None = None
    """Floating-point operations a second of this machine's matrix products, measured likewise: the peak."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run: `torch.autocast`, or nothing for float32."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, getattr(torch, self.dtype))

    def scaler(self) -> torch.amp.GradScaler:
        """A loss scaler, switched on for float16 alone, whose small gradients would vanish."""
        return torch.amp.GradScaler(self.device, enabled=self.dtype == "float16")

    def synchronize(self) -> None:
        """Waits until the device has done what it was given, so that a clock read now is true."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_memory_bytes(self) -> int | None:
        """Most memory held so far: of the device on CUDA, else of the process; None where nobody knows."""
        if self.device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes, Linux KiB

    def held_memory_bytes(self) -> int | None:
        """Memory held now: of the device on CUDA, else of the process (RSS); None where the system does not say."""
        if self.device == "cuda":
            return int(torch.cuda.memory_allocated())
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # not Linux
            return None


def choose_engine(
    *, device: str = "auto", dtype: str = "auto", compile: str = "auto", threads: int | None = None
) -> Engine:
    """The engine for this machine, each "auto" decided; the process is left as it is.

    Args:
        device: auto takes CUDA where there is a device, then Apple's mps, then the CPU.
        dtype: auto is float32 on the CPU and on mps, bfloat16 on CUDA devices that have it. bfloat16 and float16 run
            the matrix products in that type (autocast); float16 also scales the loss and needs CUDA.
        compile: auto is off.
        threads: CPU threads; None takes the number that torch is set to.

    Raises:
        ValueError: A name is unknown, or this machine cannot do what it asks.

    Example:
        >>> engine = choose_engine(device="cpu", threads=2)
        >>> engine.device, engine.dtype, engine.compile, engine.threads
        ('cpu', 'float32', False, 2)
    """
    for name, value, known in (("device", device, DEVICES), ("dtype", dtype, DTYPES), ("compile", compile, COMPILE)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
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
    return Engine(device=device, dtype=dtype, compile=compile == "on", threads=threads or torch.get_num_threads())


def configure_process(engine: Engine) -> None:
    """Sets what an engine needs of the whole process: thread count and deterministic kernels. For commands.

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


class RandomStream:
    """Torch's random numbers for one run, kept apart from everybody else's.

    Dropout draws from torch's global generators. Inside `with stream.use():` these hold the run's own state, outside
    whatever they held before, so nothing that happens between two steps (samples, a user's own draws) moves the run,
    and the run moves nobody.

    Example:
        >>> stream = RandomStream(seed=1)
        >>> with stream.use():
        ...     a = torch.rand(())
        >>> torch.manual_seed(1).initial_seed() and bool(torch.rand(()) == a)
        True
    """

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._device = device
        self._states = {"cpu": torch.Generator().manual_seed(seed).get_state()}  # each uint8 (n,)
        if device != "cpu":
            self._states[device] = torch.Generator(device).manual_seed(seed).get_state()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Puts the run's state into torch's generators, and back outside what was there."""
        others = self._read()
        self._write(self._states)
        try:
            yield
            self._states = self._read()  # not after an error: a step that was broken off is taken again
        finally:
            self._write(others)

    def state(self) -> dict[str, Tensor]:
        """The state of each generator by device name, uint8."""
        return {name: state.clone() for name, state in self._states.items()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Goes on where `state` was taken; a generator that this machine does not have is left out.

        Raises:
            ValueError: A state is of the wrong kind or size.
        """
        for name, own in self._states.items():
            saved = states.get(name)
            if saved is None:
                continue
            if saved.dtype != own.dtype or saved.shape != own.shape:
                found, wanted = (f"{t.dtype} {tuple(t.shape)}" for t in (saved, own))
                raise ValueError(f"random state of {name}: found {found}, this torch needs {wanted}")
            self._states[name] = saved.clone()

    def _read(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device != "cpu":
            states[self._device] = getattr(torch, self._device).get_rng_state()
        return states

    def _write(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._device != "cpu":
            getattr(torch, self._device).set_rng_state(states[self._device])


class CompiledLoss:
    """`loss` through torch.compile, or as it is from the first failure of the compiler on.

    The compiler needs a C++ compiler on the CPU and Triton on CUDA; a machine without them trains all the same.
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        self.failed = False
        self._eager = loss
        self._compiled: Callable[..., Tensor] = torch.compile(loss, dynamic=False)

    def __call__(self, x: Tensor, y: Tensor, *, reduction: str = "mean") -> Tensor:
        """As `GPT.loss`."""
        if self.failed:
            return self._eager(x, y, reduction=reduction)
        before = torch.get_rng_state()
        try:
            return self._compiled(x, y, reduction=reduction)
        except Exception as error:  # whatever the compiler stumbles over; an error of the model's own comes again below
            self.failed = True
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"torch.compile failed ({reason}); training goes on without it", RuntimeWarning, stacklevel=2)
            torch.set_rng_state(before)
            return self._eager(x, y, reduction=reduction)
