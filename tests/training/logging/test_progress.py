"""Progress on a terminal, in a pipe and with --quiet."""

import fcntl
import io
import os
import pty
import struct
import termios

import pytest

from logo_jax.training.logging.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(columns, steps):
    """What a terminal of that width receives from updates of a run of 150 steps."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    received = b""
    with open(writer, "w") as stream:
        with Progress(150, stream=stream, clock=lambda: 0.0) as progress:
            for step in steps:
                progress.update(step, **SHOWN)
        while not received.endswith(b"\n"):  # printed when the progress ends
            received += os.read(reader, 65536)
    os.close(reader)
    return received.decode()


SHOWN = {
    "loss": 1.23456,
    "kNN": "40.00 %",
    "epoch": "2.00/5",
    "images/s": 54321.6,
    "data wait": "0.5 %",
}
TEXT = "loss 1.235  kNN 40.00 %  epoch 2.00/5  images/s 54322  data wait 0.5 %"


def test_progress_without_a_terminal_is_one_plain_line_a_call():
    seconds = iter([10.0, 16.0])
    stream = io.StringIO()
    with Progress(100, 19, stream=stream, clock=lambda: next(seconds)) as progress:
        progress.done(20)
        progress.update(40, **SHOWN)
    # 20 steps in 6 seconds: 60 more take 18.
    assert stream.getvalue() == f"step 40/100  00:18 left  {TEXT}\n"


def test_the_time_left_is_that_of_the_steps_after_the_first():
    seconds = iter([100.0, 104.0, 104.0])
    stream = io.StringIO()
    with Progress(101, stream=stream, clock=lambda: next(seconds)) as progress:
        progress.done(1)  # compiled in 100 seconds
        progress.update(1)
        progress.done(11)
        progress.update(11)  # 10 steps in 4 seconds: 90 more take 36
    assert stream.getvalue().splitlines() == ["step 1/101", "step 11/101  00:36 left"]


@pytest.mark.parametrize(("total", "is_long"), [(3_000, True), (147, False)])
def test_one_line_states_how_long_a_long_run_takes(total, is_long):
    clock, stream = iter([0.0, 25.0, 50.0, 75.0]).__next__, io.StringIO()
    with Progress(total, stream=stream, advice="Ctrl-C", clock=clock) as progress:
        progress.done(1)
        progress.done(3)  # 2 steps in 25 seconds
        progress.done(4)
    line = "about 10.4 hours left, 12.5 s per step; Ctrl-C\n"
    assert stream.getvalue() == line * is_long


def test_progress_on_a_terminal_is_one_live_line():
    stream = Terminal()
    with Progress(100, 20, stream=stream, clock=lambda: 0.0) as progress:
        progress.done(21)
        progress.update(40, **SHOWN)
    *_, line = stream.getvalue().split("\r")
    assert line == f"step 40/100 |####      |  00:00 left  {TEXT}\n"
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("columns", "last"),
    [(80, "epoch 2.00/5"), (120, "data wait 0.5 %"), (63, "kNN 40.00 %"), (20, "")],
)
def test_the_live_line_fits_the_terminal_and_no_number_is_cut(columns, last):
    received = on_terminal(columns, steps=[5, 150])
    *drawn, final = received.rstrip("\r\n").split("\r")
    assert "\n" not in received.rstrip("\r\n")
    assert max(map(len, [*drawn, final])) <= columns
    assert final.endswith(last)


def test_lines_are_printed_between_those_of_the_progress():
    stream = Terminal()
    with Progress(2, stream=stream) as progress:
        progress.say("resumed from step 1")
    before, after = stream.getvalue().split("resumed from step 1\n")
    assert before.endswith("\r")
    assert "step 0/2 |" in after


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_shows_only_warnings(stream: io.StringIO):
    with Progress(2, quiet=True, stream=stream) as progress:
        progress.say("data: 9 images")
        progress.update(1, loss=1.0)
        progress.warn("collapsed")
    assert stream.getvalue() == "collapsed\n"
