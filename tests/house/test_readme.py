"""What the README shows of the package runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import coursekit

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_training_function_of_the_readme_runs_on_two_processes():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = f"{code}\nassert grad_norm > 0\nprint(loss)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    # Rank 0's part of the mean loss of a fresh model, which knows nothing: about half of ln 256.
    assert 2.5 < float(done.stdout) < 3.1


def test_every_name_in_the_readmes_table_is_there():
    rows = re.findall(
        r"^\| (?:fit more|go faster|train well|lose nothing|see) \|(.*)\|(.*)\|$", README, re.MULTILINE
    )
    assert len(rows) == 5
    for package, cells in zip(("train", "parallel"), zip(*rows, strict=True), strict=True):
        names = re.findall(r"`(\w+)`", " ".join(cells))
        assert names
        assert [name for name in names if not hasattr(getattr(coursekit, package), name)] == []
