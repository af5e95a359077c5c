"""Runbooks: a failed command is reported, a successful one is not repeated."""

import pathlib
import re
import subprocess
import sys

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
PROGRAM = """
source runbook.sh
begin none "$1"
run counted bash -c 'echo again >> "$1"/count; echo fast: 3 ms' - "$out"
run broken bash -c 'echo half; echo why >&2; exit 3'
run after echo reached
finish "A page"
"""


def test_a_runbook_reports_failures_and_repeats_only_them(tmp_path):
    line = ["bash", "-uc", PROGRAM, "-", str(tmp_path / "out")]
    variables = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        done = subprocess.run(
            line, cwd=BENCHMARKS, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith("failed: broken;")
        page = (tmp_path / "out" / "page.md").read_text()
        assert re.findall("^# A page|^## .*", page, re.M) == [
            "# A page",
            "## machine",
            "## counted",
            "## broken",
            "## after",
        ]
        assert "exit code 3" in page
        assert "half\nwhy\n" in page
        assert re.search(r"^jax \S+ on .* cores$", page, re.M)
    assert (tmp_path / "out" / "count").read_text() == "again\n"
