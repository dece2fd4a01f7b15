"""A setting needs to be declared only once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_one_field_of_the_request_is_known_everywhere() -> None:
    program = Path(__file__).with_name("another_setting.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.stdout == "known everywhere\n", done.stderr
