"""The measurements of a run for TensorBoard and for Weights & Biases; nothing of either is loaded unless asked for."""

import netrc
import os
import secrets
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinygpt.metrics import scalars
from tinygpt.staging import write_file

WANDB_ID = "wandb-id"


class Trackers:
    """Whoever wants each line of metrics.jsonl besides; a failure of theirs is warned of once and ends nothing.

    Args:
        folder: The run's folder.
        tensorboard: Write event files into `folder/tensorboard`.
        wandb: Project of Weights & Biases to log to, None for none. It is reached only with a login (WANDB_API_KEY or
            an entry in the netrc file); without one the run is logged into `folder/wandb`, for `wandb sync`.
        settings: What the run was started with, for Weights & Biases to show.
        step: The step that the run stands at. Points after it are taken back in TensorBoard.
        logged: The last step that an earlier session logged. Weights & Biases takes nothing back, and the points that
            a continued run repeats are the same, so those are not sent again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tensorboard: bool,
        wandb: str | None,
        settings: Mapping[str, Any],
        step: int,
        logged: int,
    ) -> None:
        self._writer: Any = None
        self._run: Any = None
        self._sent = 0
        if tensorboard:
            with self._kept("TensorBoard"):
                module = import_module("torch.utils.tensorboard")
                self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        if wandb is not None:
            self._sent = logged if (folder / WANDB_ID).is_file() else 0
            with self._kept("Weights & Biases"):
                self._run = _wandb_run(folder, wandb, settings)

    def append(self, line: Mapping[str, Any]) -> None:
        """Passes on an object of metrics.jsonl."""
        values = {name: value for name, value in scalars(line).items() if value is not None}
        step, sample = values.pop("step"), line.get("sample")
        if self._writer:
            with self._kept("TensorBoard"):
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)
                if sample:
                    self._writer.add_text("sample", sample, step)
        if self._run and step > self._sent:
            with self._kept("Weights & Biases"):
                self._run.log({**values, **({"sample": sample} if sample else {})}, step=step)

    def flush(self) -> None:
        """Brings what was passed on to the disk, where that can be asked for."""
        if self._writer:
            with self._kept("TensorBoard"):
                self._writer.flush()

    def close(self) -> None:
        """Ends both logs; another session goes on with them."""
        if self._writer:
            with self._kept("TensorBoard"):
                self._writer.close()
        if self._run:
            with self._kept("Weights & Biases"):
                self._run.finish()

    @contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        """Where a failure ends that one tracker and nothing else."""
        try:
            yield
        except Exception as error:  # theirs: a full disk, a lost connection, a refused login, whatever comes
            if name == "TensorBoard":
                self._writer = None
            else:
                self._run = None
            message = f"{name}: {error or type(error).__name__}; nothing more is written there, metrics.jsonl goes on"
            warnings.warn(message, RuntimeWarning, stacklevel=5)


def check_packages(*, tensorboard: bool, wandb: str | None) -> None:
    """Returns when what is asked for is installed.

    Raises:
        ValueError: A package is missing; the message says how to install it.

    Example:
        >>> check_packages(tensorboard=False, wandb=None)
    """
    for name, is_wanted in (("tensorboard", tensorboard), ("wandb", wandb is not None)):
        if is_wanted and find_spec(name) is None:
            raise ValueError(f'{name} is asked for, but that package is missing; pip install "tinygpt[{name}]"')


def _wandb_run(folder: Path, project: str, settings: Mapping[str, Any]) -> Any:
    wandb = import_module("wandb")
    path = folder / WANDB_ID
    if not path.is_file():
        write_file(path, secrets.token_hex(4))
    return wandb.init(
        project=project,
        name=folder.resolve().name,
        id=path.read_text(encoding="utf-8").strip(),
        dir=str(folder),
        config=dict(settings),
        resume="allow",
        mode=os.environ.get("WANDB_MODE") or ("online" if _has_login() else "offline"),
        settings=wandb.Settings(silent=True, console="off", disable_git=True),
    )


def _has_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
