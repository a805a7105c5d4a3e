"""Write unicode.rs: the code points of Unicode 16 that are letters, numbers, marks or white space.

Run `pip install unicodedata2==16.0.0 && python rust/pretokenize/generate_unicode.py` from the top of the repository.
The version is the one that tiktoken, tokenizers and Rust's regex use; another one would change token ids.
"""

from itertools import groupby
from pathlib import Path

import unicodedata2

# The property White_Space of PropList.txt, unchanged since Unicode 6.3: it is not a general category.
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
WHITE_SPACE |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}

# The flags of `Class` in mod.rs.
LETTER, NUMBER, SPACE, UPPER, LOWER = 1, 2, 4, 8, 16
FLAGS = {"Lu": LETTER | UPPER, "Lt": LETTER | UPPER, "Ll": LETTER | LOWER}
FLAGS |= {category: LETTER | UPPER | LOWER for category in ("Lm", "Lo")}
FLAGS |= {category: UPPER | LOWER for category in ("Mn", "Mc", "Me")}
FLAGS |= {category: NUMBER for category in ("Nd", "Nl", "No")}

TEMPLATE = """//! Letters, numbers, marks, white space of Unicode {version}, by `generate_unicode.py`; do not edit.

/// Ranges (first, last, flags of `Class`), ascending; every other code point has none.
#[rustfmt::skip]
pub(super) static RANGES: [(u32, u32, u8); {count}] = [
{rows}
];
"""


def flags_of(code: int) -> int:
    """Flags of a code point."""
    return SPACE if code in WHITE_SPACE else FLAGS.get(unicodedata2.category(chr(code)), 0)


def main() -> None:
    """Write the table beside this file."""
    assert unicodedata2.unidata_version == "16.0.0", unicodedata2.unidata_version
    ranges = []
    for flags, run in groupby(range(0x110000), key=flags_of):
        codes = list(run)
        if flags:
            ranges.append(f"(0x{codes[0]:X}, 0x{codes[-1]:X}, {flags}),")
    rows = "\n".join("    " + " ".join(ranges[i : i + 4]) for i in range(0, len(ranges), 4))
    text = TEMPLATE.format(version=unicodedata2.unidata_version, count=len(ranges), rows=rows)
    Path(__file__).with_name("unicode.rs").write_text(text)


if __name__ == "__main__":
    main()
