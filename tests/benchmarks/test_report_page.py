"""The report in a browser: drawn, silent, and asking nobody for anything."""

import pytest

from benchmarks import report_page
from logo_jax import report
from tests.commands.test_report import CURVES, fixture_arrays, make_run

__all__ = ["fixture_arrays"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*load_module"),  # ml_collections
    pytest.mark.skipif(
        report_page.chromium() is None,
        reason="NO BROWSER OPENS THE REPORT: no chromium or google-chrome on the PATH; "
        "on Debian: apt-get install chromium",
    ),
]
BAD = """<!doctype html>
<figure id="broken"><img src="data:image/png;base64,xx"></figure>
<img src="http://127.0.0.1:9/far.png"><script>console.log("said")</script>
<p style="width: 2000px">wide</p>"""


def test_a_browser_draws_every_figure_and_has_no_complaint(arrays, tmp_path, capsys):
    run = make_run(tmp_path / "run", arrays)
    report.main([str(run), "--no_images"])
    page = run / "report" / "index.html"
    assert report_page.main([str(page), f"--out={tmp_path}"]) == 0
    said = capsys.readouterr().out.splitlines()[1:]
    assert said == [f"{name}: 0 faults" for name in report_page.SETTINGS]
    assert page.read_text().count("<figure") == len(CURVES)
    for name in report_page.SETTINGS:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_a_browser_finds_what_is_wrong_with_a_page(tmp_path, capsys):
    page = tmp_path / "bad.html"
    page.write_text(BAD)
    assert report_page.main([str(page), f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert "light: broken is not drawn" in said
    assert "light: asks for http://127.0.0.1:9/far.png" in said
    assert "light: console: " in said
    assert "pixels wide in a window of 1280" in said
