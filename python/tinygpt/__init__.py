"""tinygpt: from a folder of text to a GPT of one's own.

The public names are listed here and nowhere else. They are imported when first touched, so `import tinygpt`
costs milliseconds and a program that only tokenizes never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygpt._core import Counts as Counts
    from tinygpt._core import FormatError as FormatError
    from tinygpt.checkpoint import Checkpoint as Checkpoint
    from tinygpt.corpus import Corpus as Corpus
    from tinygpt.dataset import TokenDataset as TokenDataset
    from tinygpt.manifest import Manifest as Manifest
    from tinygpt.mixeddataset import MixedDataset as MixedDataset
    from tinygpt.model import GPT as GPT
    from tinygpt.modelconfig import GPTConfig as GPTConfig
    from tinygpt.stepreport import StepReport as StepReport
    from tinygpt.stepreport import TrainResult as TrainResult
    from tinygpt.tokenizer import Tokenizer as Tokenizer
    from tinygpt.trainconfig import TrainConfig as TrainConfig
    from tinygpt.trainer import Trainer as Trainer

__version__ = "0.1.0"

_HOME = {
    "Checkpoint": "checkpoint",
    "Corpus": "corpus",
    "Counts": "_core",
    "FormatError": "_core",
    "GPT": "model",
    "GPTConfig": "modelconfig",
    "Manifest": "manifest",
    "MixedDataset": "mixeddataset",
    "StepReport": "stepreport",
    "TokenDataset": "dataset",
    "Tokenizer": "tokenizer",
    "TrainConfig": "trainconfig",
    "TrainResult": "stepreport",
    "Trainer": "trainer",
}

__all__ = [  # noqa: RUF022
    "Checkpoint",
    "Corpus",
    "Counts",
    "FormatError",
    "GPT",
    "GPTConfig",
    "Manifest",
    "MixedDataset",
    "StepReport",
    "TokenDataset",
    "Tokenizer",
    "TrainConfig",
    "TrainResult",
    "Trainer",
]


_MODULES = {
    "bench",
    "encode",
    "evaluate",
    "evaluation",
    "export",
    "generate",
    "plan",
    "planning",
    "prepare",
    "report",
    "serve",
    "show",
    "train",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"tinygpt.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tinygpt' has no attribute {name!r}")
    value = getattr(import_module(f"tinygpt.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
