"""What a person sees of a run: a live line, plain lines, or only what matters."""

import io

import pytest

from logo_jax.training.logging.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SHOWN = {
    "epoch": "2.00/5",
    "loss": 1.23456,
    "kNN": "40.00 %",
    "images/s": 54321.6,
    "waiting": "0.5 %",
}
TOLD = "epoch 2.00/5  loss 1.235  kNN 40.00 %  images/s 54322  waiting 0.5 %"


def test_progress_without_a_terminal_is_one_plain_line_a_call():
    seconds = iter([10.0, 16.0])
    stream = io.StringIO()
    with Progress(100, 20, stream=stream, clock=lambda: next(seconds)) as progress:
        progress.update(40, **SHOWN)
    # 20 steps in 6 seconds: 60 more take 18.
    assert stream.getvalue() == f"step 40/100  00:18 left  {TOLD}\n"


def test_the_time_left_forgets_how_long_the_first_line_took():
    seconds = iter([0.0, 100.0, 104.0])
    stream = io.StringIO()
    with Progress(100, stream=stream, clock=lambda: next(seconds)) as progress:
        progress.update(10)  # compiled in 100 seconds
        progress.update(20)  # 10 steps in 4 seconds: 80 more take 32
    assert stream.getvalue().splitlines()[1] == "step 20/100  00:32 left"


def test_progress_on_a_terminal_is_one_live_line():
    stream = Terminal()
    with Progress(100, 20, stream=stream, clock=lambda: 0.0) as progress:
        progress.update(40, **SHOWN)
    *_, line = stream.getvalue().split("\r")
    assert " 40%|" in line
    assert line.endswith(f"00:00 left  {TOLD}\n")
    assert stream.getvalue().count("\n") == 1


def test_said_lines_stand_alone_between_live_ones():
    stream = Terminal()
    with Progress(2, stream=stream) as progress:
        progress.say("resumed from step 1")
    before, after = stream.getvalue().split("resumed from step 1\n")
    assert before.endswith("\r")
    assert "0%|" in after


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_shows_only_warnings(stream: io.StringIO):
    with Progress(2, quiet=True, stream=stream) as progress:
        progress.say("data: 9 images")
        progress.update(1, loss=1.0)
        progress.warn("collapsed")
    assert stream.getvalue() == "collapsed\n"
