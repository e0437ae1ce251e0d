"""The code of docs/python.md runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_there_is_code():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_code_runs(number):
    if "torch" in BLOCKS[number]:
        pytest.importorskip("torch", reason="torch is not installed: the drop-ins are NOT tested")
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number}", "exec"), {})
