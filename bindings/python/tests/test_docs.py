"""The code of docs/python.md runs, and the README's. The README's lines for C, candle and burn are those of pages whose code runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "python.md"
README = (ROOT / "README.md").read_text()
OF_PAGE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
OF_README = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BLOCKS = OF_PAGE + OF_README


def test_there_is_code():
    assert (len(OF_PAGE), len(OF_README)) == (3, 1)


def test_the_readmes_other_lines_are_those_of_tested_pages():
    pages = [("rust,ignore", "candle.md"), ("rust,ignore", "burn.md"), ("c", "c.md")]
    blocks = [(kind, block) for kind in ("rust,ignore", "c") for block in re.findall(f"```{kind}\n(.*?)```", README, re.DOTALL)]
    assert [kind for kind, _ in blocks] == [kind for kind, _ in pages]
    for (_, block), (_, page) in zip(blocks, pages, strict=True):
        text = (ROOT / "docs" / page).read_text()
        for line in block.splitlines():
            assert line.strip().rstrip(";") in text, f"{page}: {line}"


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_runs(number):
    if "torch" in BLOCKS[number]:
        pytest.importorskip("torch", reason="torch is not installed: the drop-ins are NOT tested")
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), {})
