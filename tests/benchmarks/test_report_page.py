"""The report in a browser: figures drawn, no console message, no network request."""

import pytest

from benchmarks import report_page
from logo_jax import report
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
