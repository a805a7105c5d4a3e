"""The environment of the peers, apart from ours: made when first needed, in `.venv-bench`."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".venv-bench"
# The versions whose fastest doors the suite knows.
PACKAGES = ("gigatoken==0.10.0", "rustbpe==0.1.0", "tiktoken==0.14.0", "tokenizers==0.23.3", "numpy>=2")


def interpreter() -> str:
    """The Python that has the peers."""
    python = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = FOLDER / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != " ".join(PACKAGES):
        print(f"installing {', '.join(PACKAGES)} into {FOLDER}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        stamp.write_text(" ".join(PACKAGES), encoding="utf-8")
    return str(python)
