"""What `import tinygpt` gives, and what it leaves alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tinygpt

NAMES = [
    *("Checkpoint", "Corpus", "Counts", "FormatError", "GPT", "GPTConfig", "Manifest", "MixedDataset"),
    *("StepReport", "TokenDataset", "Tokenizer", "TrainConfig", "TrainResult", "Trainer"),
]


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def test_exported_names_are_these() -> None:
    assert sorted(tinygpt.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_exported_name_is_a_documented_class_and_not_a_verb(name: str) -> None:
    value = getattr(tinygpt, name)
    assert isinstance(value, type)
    assert (value.__doc__ or "").strip()
    assert not (Path(tinygpt.__file__).parent / f"{name}.py").exists()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tinygpt' has no attribute 'Tokeniser'"):
        _ = tinygpt.Tokeniser


def test_importing_loads_nothing_heavy() -> None:
    loaded = python("import sys, tinygpt; print(sorted({'torch', 'numpy', 'yaml', 'tyro', 'tqdm'} & set(sys.modules)))")
    assert loaded == "[]"


def test_tokenizing_does_not_load_torch() -> None:
    code = "import sys, tinygpt; tinygpt.Tokenizer, tinygpt.Corpus, tinygpt.Manifest; print('torch' in sys.modules)"
    assert python(code) == "False"


def test_importing_changes_no_setting_of_the_process() -> None:
    code = """
import logging, os, random, signal, threading
def state():
    return (dict(os.environ), random.getstate(), logging.root.handlers[:], logging.root.level,
            threading.active_count(), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)])
before = state()
import tinygpt
print(state() == before)
"""
    assert python(code) == "True"


def test_importing_every_module_draws_no_random_number_and_sets_no_threads() -> None:
    code = """
import importlib, pkgutil, torch, tinygpt
def state():
    return torch.get_num_threads(), torch.get_rng_state().tolist(), torch.get_default_dtype()
before = state()
for module in pkgutil.walk_packages(tinygpt.__path__, "tinygpt."):
    importlib.import_module(module.name)
print(state() == before)
"""
    assert python(code) == "True"


def test_modules_that_the_pages_name_are_there_after_the_import() -> None:
    code = "import tinygpt; print(tinygpt.train.__name__, tinygpt.evaluation.evaluate.__module__)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["tinygpt.train", "tinygpt.evaluation"]
