"""The report in a browser: figures drawn, no console message, no network request."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from benchmarks import report_page
from logo_jax import report
from logo_jax.visualization.neighbor_page import Neighbors, neighbor_page
from tests.commands.test_report import CURVES, fixture_arrays, make_run

__all__ = ["fixture_arrays"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*load_module"),  # ml_collections
    pytest.mark.skipif(
        report_page.chromium() is None,
        reason="THE REPORT IS NOT TESTED IN A BROWSER: chromium and google-chrome are "
        "not on the PATH; on Debian: apt-get install chromium",
    ),
]
BAD = """<!doctype html>
<figure id="broken"><img src="data:image/png;base64,xx"></figure>
<img src="http://127.0.0.1:9/far.png"><script>console.log("text")</script>
<p style="width: 2000px">wide</p>"""


def test_a_browser_draws_every_figure_without_faults(arrays, tmp_path, capsys):
    run = make_run(tmp_path / "run", arrays)
    report.main([str(run), "--no_images"])
    page = run / "report" / "index.html"
    assert report_page.main([str(page), f"--out={tmp_path}"]) == 0
    printed = capsys.readouterr().out.splitlines()[1:]
    assert printed == [f"{name}: 0 faults" for name in report_page.SETTINGS]
    assert page.read_text().count("<figure") == len(CURVES)
    for name in report_page.SETTINGS:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_faults_of_a_page_are_reported(tmp_path, capsys):
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    assert report_page.main([str(page), f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert "light: broken is not drawn" in printed
    assert "light: requests http://127.0.0.1:9/far.png" in printed
    assert "light: console: " in printed
    assert "pixels wide in a window of 1280" in printed


def test_a_click_shows_the_neighbors_and_the_browser_goes_back(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "JPEG")
    found = Neighbors(np.array([[0.5], [0.25], [0.5]]), np.array([[2], [0], [0]]))
    names = [("a<b>.png", ""), ("b.png", "cat"), ("c.png", "")]
    shown = dict.fromkeys(range(2), picture.getvalue())
    page = tmp_path / "page.html"
    page.write_text(neighbor_page("x", ["about"], names, found, [[0, 1]], shown))
    assert report_page.main([str(page), f"--out={tmp_path}"]) == 0
    with (
        report_page.browser() as address,
        connect(address, max_size=None) as connection,
    ):
        tab = report_page.Tab(connection)
        tab.call("Page.enable")
        tab.call("Page.navigate", url=page.as_uri())
        tab.wait("Page.loadEventFired")

        def does(script):
            """Runs a script, waits for the page to follow, returns the panel's text."""
            wait = "new Promise(done => addEventListener('hashchange', done))"
            text = "document.getElementById('panel').innerText.split('\\n')"
            code = f"(async () => {{ const seen = {wait}; {script}; await seen; "
            code += f"return JSON.stringify({text}) }})()"
            call = {"expression": code, "awaitPromise": True}
            return json.loads(tab.call("Runtime.evaluate", **call)["result"]["value"])

        first = does("document.querySelector('#i1 a').click()")
        assert first[0] == "Nearest neighbors of b.png"
        assert first[-2:] == ["0.2500", "a<b>.png"]
        second = does("document.querySelectorAll('#panel a.card')[1].click()")
        assert second[-3:] == ["not on this page", "0.5000", "c.png"]
        assert does("history.back()") == first
        assert does("document.querySelector('#panel .close').click()") == [""]
