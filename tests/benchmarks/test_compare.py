"""`benchmarks.compare`: ratios of figures of two commits, without files left behind."""

import json
import subprocess

import pytest

from benchmarks import compare

BENCHMARK = """
import json, pathlib
seconds = float(pathlib.Path("seconds").read_text())
print(json.dumps({"rounds": 1, "rows": [{"step": "joint", "seconds": seconds}]}))
"""


def git(*arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture(autouse=True)
def fixture_repository(tmp_path, monkeypatch, git_alone):
    """A repository with two commits; the second takes a quarter of the time."""
    del git_alone  # only its changes are needed
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / "bench.py").write_text(BENCHMARK)
    for seconds in (8, 2):
        (tmp_path / "seconds").write_text(str(seconds))
        git("add", ".")
        git("commit", "--quiet", "--message=a commit")


def test_figures_of_the_second_commit_are_divided_by_those_of_the_first(capsys):
    compare.main(["HEAD~1", "HEAD", "--rounds=2", "--", "bench.py"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["ratios"] == {"rows/joint/seconds": [0.25, 0.25, 0.25]}
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_benchmark_that_fails_is_named_and_leaves_no_worktree():
    with pytest.raises(SystemExit, match="missing.py must print a JSON line"):
        compare.main(["HEAD~1", "HEAD", "--", "missing.py"])
    assert len(git("worktree", "list").splitlines()) == 1


def test_a_commit_that_does_not_exist_is_named():
    with pytest.raises(SystemExit, match="nowhere"):
        compare.main(["HEAD", "nowhere", "--", "bench.py"])
    assert len(git("worktree", "list").splitlines()) == 1
