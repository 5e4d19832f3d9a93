"""Prints what a reader of docs/write-a-plugin.md does, as a script for bash: `python tests/tutorial.py > tutorial.sh`.

In the order of the page: its `sh` blocks, word for word, and the files that it says to write. Its other Python blocks
stand for themselves, and together are a file of tests.
"""

import re
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "write-a-plugin.md"
BLOCK = re.compile(
    r"(?:<!-- not run: written to (?P<path>\S+) -->\n```python|```sh)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
EXAMPLE = re.compile(r"(?<!-->\n)^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Each block, with the file that it is to be written to, or "" for commands."""
    return ((block["path"] or "", block["text"]) for block in BLOCK.finditer(page))


def examples(page: str) -> str:
    """The Python that is not written to a file, as a file."""
    return "\n".join(EXAMPLE.findall(page))


def script(page: str) -> str:
    """All steps, for an empty folder."""
    written = (f"cat > {path} <<'END'\n{text}END\n" if path else text for path, text in steps(page))
    return "\n".join(["set -euxo pipefail", *written])


if __name__ == "__main__":
    print(script(PAGE.read_text(encoding="utf-8")))
