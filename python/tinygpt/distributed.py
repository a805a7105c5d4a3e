"""Ranks: the processes that train one model together under `torchrun`, and what they have to tell each other.

Every rank takes its own rows of the same global batch. With "ddp" each holds the whole model, and the gradients of all
are added up once a step. torch's own DistributedDataParallel is not used: it reduces inside the last backward pass of
a step, while a step here adds up float32 gradients over several passes in the masters' `.grad`, which are not what
backward sees when it runs in bfloat16. With "fsdp" each holds a part of every parameter and of the optimiser's state
(torch's `fully_shard`), and sees a block's whole weights only while it runs.

Numbers and decisions (targets, losses, clocks, signals) go through the CPU, so no GPU waits for them. torch is imported
by the methods that need it: a process that prepares text before it trains must not carry it.
"""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

HOW = ("auto", "ddp", "fsdp")
LAUNCH = "torchrun --nproc-per-node 2 -m tinygpt.train ..."
SILENCE_SECONDS = 600
_BUCKET_NUMBERS = 1 << 24  # 64 MiB of float32: large enough for the network, small beside a model that needs it
_PATIENCE = timedelta(days=30)  # others wait this long while the first prepares text
_FIRST_TOLD = "the first rank told of an error"


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process among those that train together; by default it is the only one, and no method does anything.

    Example:
        >>> ranks = Ranks()
        >>> ranks.is_first, ranks.sum(3, 0.5), ranks.seed(7)
        (True, (3, 0.5), 7)
    """

    rank: int = 0
    """This process, from 0; the first one prints, writes and saves."""
    world_size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """This process on its machine, which is its GPU."""
    local_world_size: int = 1
    """Processes on this machine."""
    how: str = "none"
    """ddp, fsdp, or none for a process that is alone."""

    @staticmethod
    def from_environment(how: str = "auto", environment: Mapping[str, str] = os.environ) -> "Ranks":
        """What `torchrun` says in the environment.

        Args:
            how: auto is ddp under torchrun and a single process elsewhere.
            environment: Where RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE stand.

        Raises:
            ValueError: `how` is unknown, asks for several processes where there is one, or torchrun's words are wrong.

        Example:
            >>> Ranks.from_environment(environment={"RANK": "1", "WORLD_SIZE": "4"}).how
            'ddp'
        """
        if how not in HOW:
            raise ValueError(f"distributed must be one of {', '.join(HOW)}, got {how!r}")
        if "WORLD_SIZE" not in environment:
            if how != "auto":
                raise ValueError(
                    f"distributed {how} needs several processes, and this one is alone; start it by {LAUNCH}"
                )
            return Ranks()
        names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": environment.get("RANK", "0"), "LOCAL_WORLD_SIZE": "1"}
        words = {name: environment.get(name, default) for name, default in names.items()}
        if wrong := [f"{name}={word}" for name, word in words.items() if not word.isdigit()]:
            raise ValueError(f"environment: {', '.join(wrong)} must be whole numbers; start the processes by {LAUNCH}")
        rank, world_size, local_rank, local_world_size = (int(word) for word in words.values())
        return Ranks(
            rank=rank,
            world_size=world_size,
            local_rank=local_rank,
            local_world_size=max(1, local_world_size),
            how="ddp" if how == "auto" else how,
        )

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints, writes and saves."""
        return self.rank == 0

    @contextmanager
    def joined(self, *, silence_seconds: float = SILENCE_SECONDS) -> Iterator[None]:
        """The process group, inside; every rank leaves it together. For commands: it picks this process's GPU.

        An error leaves at once, which ends the others: they are told that a rank is gone. An error that every rank
        meets is told by the first alone; the others end by SystemExit.

        Args:
            silence_seconds: A rank that is not heard of for so long is given up.

        Raises:
            RuntimeError: Another rank ended or fell silent.
        """
        if self.how == "none":
            yield
            return
        import torch
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        has_cuda = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))
        if has_cuda:
            torch.cuda.set_device(self.local_rank)
        limit = timedelta(seconds=silence_seconds)
        store, _, _ = next(rendezvous("env://", self.rank, self.world_size, timeout=limit))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_cuda else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=limit,
        )
        try:
            yield
            sys.stdout.flush()  # torchrun may end this rank as soon as another one has ended with a signal's code
            self.barrier()
        except Exception as error:
            if isinstance(error, RuntimeError) and _is_from_group(error):
                told = " ".join(str(error).split())[:200]
                raise RuntimeError(
                    f"rank {self.rank} of {self.world_size} lost another rank, which ended or was silent for "
                    f"{silence_seconds:g} s; see what that one told ({told})"
                ) from None
            if self.is_first:
                store.set(_FIRST_TOLD, "1")
            elif _arrives(store, _FIRST_TOLD):
                raise SystemExit(1) from None
            raise
        dist.destroy_process_group()

    @contextmanager
    def after_first(self) -> Iterator[None]:
        """The block runs on the first rank, then on the others: for what one makes and all use, however long."""
        if self.world_size == 1:
            yield
            return
        import torch.distributed as dist

        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(patient, dist.ProcessGroup)  # every rank is in it
        if not self.is_first:
            dist.barrier(group=patient)
        yield
        if self.is_first:
            dist.barrier(group=patient)

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        self.sum(0)

    def sum(self, *numbers: float) -> tuple[float, ...]:
        """Each number added up over the ranks, in float64 and in the order of the ranks."""
        return numbers if self.world_size == 1 else tuple(sum(each) for each in zip(*self._all(numbers), strict=True))

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return number if self.world_size == 1 else int(max(row[0] for row in self._all([number])))

    def of_first(self, *numbers: float) -> tuple[float, ...]:
        """The first rank's numbers; what the others give is left out."""
        return numbers if self.world_size == 1 else tuple(self._all(numbers)[0])

    def seed(self, seed: int) -> int:
        """Seed of this rank's dropout: another one for each rank, the given one for the first."""
        return (seed + self.rank * 0x9E3779B97F4A7C15) % 2**63  # an odd constant that no user's seeds are apart by

    def threads(self, threads: int | None) -> int | None:
        """CPU threads for this rank: `threads`, or its share of the cores where several ranks are on one machine.

        torchrun sets OMP_NUM_THREADS to 1 for every process, so what torch finds is of no use then.
        """
        if threads is not None or self.local_world_size == 1:
            return threads
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        return max(1, cores // self.local_world_size)

    def check_share(self, n_windows: int) -> None:
        """Returns when `n_windows` can be shared equally.

        Raises:
            ValueError: They cannot.
        """
        if n_windows % self.world_size:
            below = n_windows - n_windows % self.world_size
            good = " or ".join(str(n) for n in (below, below + self.world_size) if n)
            raise ValueError(
                f"batch_size * grad_accum is {n_windows} windows, which {self.world_size} processes cannot share "
                f"equally; make it {good}"
            )

    def distribute(self, model: "nn.Module", blocks: Iterable["nn.Module"], *, dtype: str) -> None:
        """Makes a model ready in place: the weights of the first rank everywhere, and with fsdp a part on each.

        Args:
            model: On its device; its method `loss` is what training calls.
            blocks: The parts of it whose weights are gathered and freed together.
            dtype: bfloat16 has the sharded model compute in it; gradients are added up in float32 always.
        """
        if self.how == "none":
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for parameter in model.parameters():
                dist.broadcast(parameter, 0)
        if self.how != "fsdp":
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        kind = next(model.parameters()).device.type
        mesh = init_device_mesh(kind, (self.world_size,))
        computes_in = torch.bfloat16 if dtype == "bfloat16" else None
        policy = MixedPrecisionPolicy(param_dtype=computes_in, reduce_dtype=torch.float32)
        for module in (*blocks, model):
            # The outermost weights, too, are freed after a forward pass: one that no backward follows, as in an
            # evaluation, would else leave them gathered, and the optimiser's parameters would not be the model's.
            sharded: FSDPModule = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
            # The loss is divided by the targets of all ranks already; the means that are torch's default, gloo lacks.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(model, "loss")

    def reduce_after(self, model: "nn.Module", *, is_last: bool) -> None:
        """To be called before each pass of a step: only the last one's backward adds up the sharded gradients."""
        if self.how == "fsdp":
            model.set_requires_gradient_sync(is_last)  # type: ignore[operator]
            model.set_is_last_backward(is_last)  # type: ignore[operator]

    def sum_gradients(self, parameters: Iterable["nn.Parameter"]) -> None:
        """Adds up the gradients of a whole step over the ranks, in place; fsdp has done so in the backward pass."""
        if self.how != "ddp" or self.world_size == 1:
            return
        import torch
        import torch.distributed as dist

        for bucket in _buckets([p for p in parameters if p.requires_grad]):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])  # (n,)
            dist.all_reduce(flat)
            for p, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p) if p.grad is None else p.grad.copy_(part.view_as(p))

    def clip_gradients(self, parameters: Iterable["nn.Parameter"], limit: float) -> float:
        """Norm of the whole gradient, which is scaled down to `limit` where it is longer."""
        from torch.nn.utils import clip_grad_norm_

        norm = clip_grad_norm_(parameters, limit)  # ()
        return float(norm.full_tensor() if self.how == "fsdp" else norm)  # type: ignore[attr-defined]

    def gather(self, tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
        """Whole tensors on the CPU, on the first rank; nothing on the others, which must take part."""
        if self.how != "fsdp":
            return {name: tensor.detach().cpu() for name, tensor in tensors.items()} if self.is_first else {}
        from torch.distributed.tensor import DTensor

        whole: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.is_first:
                whole[name] = full.detach().cpu()
        return whole

    def gather_copies(self, tensor: "Tensor") -> list["Tensor"]:
        """The CPU tensors that the ranks give, of one shape and type, in their order."""
        if self.world_size == 1:
            return [tensor]
        import torch
        import torch.distributed as dist

        copies = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(copies, tensor.contiguous())
        return copies

    def part(self, tensor: "Tensor", parameter: "Tensor") -> "Tensor":
        """The part of this rank of a whole tensor, divided as `parameter` is; the tensor where that is not divided."""
        if self.how != "fsdp" or tensor.shape != parameter.shape:
            return tensor
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(parameter, DTensor):
            return tensor
        to = tensor.to(parameter.device)
        return distribute_tensor(to, parameter.device_mesh, parameter.placements, src_data_rank=None)

    def _all(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, in their order."""
        import torch
        import torch.distributed as dist

        mine = torch.tensor(numbers, dtype=torch.float64)  # (n,)
        rows = torch.empty(self.world_size, len(mine), dtype=torch.float64)  # (world_size, n)
        dist.all_gather(list(rows), mine)
        return rows.tolist()


def label(verb: str) -> str:
    """The verb for messages, with the rank behind it where it is not the first.

    Example:
        >>> label("train")
        'train'
    """
    rank = os.environ.get("RANK", "0")
    return verb if rank == "0" else f"{verb} (rank {rank})"


def end_process(code: int) -> int:
    """`code`, for a process alone; one that torchrun started ends here and now. For commands, as their last act.

    Threads of the process group may outlive the interpreter, and then abort a process that has done all its work: with
    gloo and fsdp in 2 of 10 runs, which torchrun takes for a failure.
    """
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def silent() -> Iterator[None]:
    """Nothing printed and no warning shown inside: for commands on ranks other than the first."""
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout = before


def _buckets(parameters: Sequence["nn.Parameter"]) -> Iterator[list["nn.Parameter"]]:
    """The parameters in their order, in runs of about `_BUCKET_NUMBERS` numbers."""
    bucket: list[nn.Parameter] = []
    n = 0
    for parameter in parameters:
        bucket.append(parameter)
        n += parameter.numel()
        if n >= _BUCKET_NUMBERS:
            yield bucket
            bucket, n = [], 0
    if bucket:
        yield bucket


def _is_from_group(error: RuntimeError) -> bool:
    """Whether an error came out of the process group; gloo raises bare RuntimeErrors."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "TCPStore"))


def _arrives(store: object, key: str, seconds: float = 3) -> bool:
    """Whether another rank sets `key` within the time."""
    try:
        store.wait([key], timedelta(seconds=seconds))  # type: ignore[attr-defined]
    except RuntimeError:
        return False
    return True
