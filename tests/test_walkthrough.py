"""The walkthrough runs as a user types it, and what it shows is so."""

import re
import subprocess
import sys

import pytest
from train_cases import ROOT, environment


@pytest.mark.slow
def test_liir_in_100_lines_learns_correspondence():
    script = ROOT / 'docs' / 'walkthroughs' / 'liir_in_100_lines.py'
    done = subprocess.run(
        [sys.executable, str(script), '120'], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    untrained, trained = map(float, re.search(r'untrained ([\d.]+), trained ([\d.]+)', done.stdout).groups())
    assert trained > untrained + 0.05
    code = [line for line in script.read_text().split('"""', 2)[2].splitlines() if line.split('#')[0].strip()]
    assert len(code) <= 100
