from pathlib import Path

import numpy as np
import pytest
from tinygpt._core import FormatError
from tinygpt.header import Header, read_header


def test_llm_c_header_leaves_our_words_unsaid(tmp_path: Path) -> None:
    header = np.zeros(256, "<i4")
    header[:3] = 20240801, 7, 2
    (tmp_path / "a.bin").write_bytes(header.tobytes() + np.array([70000, 1], "<u4").tobytes())
    assert read_header(tmp_path / "a.bin") == Header(dtype="uint32", n_tokens=2)


def test_file_shorter_than_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(1000))
    with pytest.raises(FormatError, match="1000 bytes, too short"):
        read_header(tmp_path / "a.bin")
