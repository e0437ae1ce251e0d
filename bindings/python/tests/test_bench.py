"""The benchmark's command, as docs/python.md has it, finds the package that is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: the benchmark is NOT tested")


def test_the_command_runs():
    script = Path(__file__).parents[1] / "bench.py"
    done = subprocess.run([sys.executable, script, "--seconds", "0.01", "--threads", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "GRU   10 x 1" in done.stdout and "empty" in done.stdout
