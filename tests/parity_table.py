"""The parity table: `python tests/parity_table.py` prints the largest deviations from other implementations."""

import tempfile
from pathlib import Path

import torch
from parity import BLOCK, CLASSES, MIXTURES, STEPS, from_reference, from_transformers


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'against':40} {'logits':>8} {'loss':>8} {'gradient':>8}")
    for dtype in (torch.float64, torch.float32):
        found = [from_reference(options, dtype) for options in MIXTURES]
        name = f"plain reference, {len(found)} mixtures, {str(dtype).removeprefix('torch.')}"
        largest = (max(getattr(each, part) for each in found) for part in ("logits", "loss", "gradient"))
        print(f"{name:40} {' '.join(f'{number:8.0e}' for number in largest)}", flush=True)
    for name in CLASSES:
        with tempfile.TemporaryDirectory() as folder:
            each = from_transformers(name, Path(folder))
        print(f"{f'transformers {name}, float32':40} {each.logits:8.0e} {each.loss:8.0e}", flush=True)
    print(f"\ntransformers: logits of {4 * BLOCK} tokens, weights far from 0; losses of {STEPS} AdamW steps")


if __name__ == "__main__":
    main()
