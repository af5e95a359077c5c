"""Opens a page in headless Chromium and checks it for faults.

    python -m benchmarks.report_page runs/quickstart/report/index.html [--out=DIR]

Takes screenshots of the whole page with a light and a dark color scheme and in a narrow
window: DIR/light.png, dark.png and narrow.png. Fails and prints the faults if the
console has a message, a figure is not drawn, the page makes a network request, or the
page is wider than its window. Needs `chromium` (Debian: apt-get install chromium) and
the extra `test`.
"""

import argparse
import base64
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

SETTINGS = {  # name of the screenshot: width in pixels, color scheme
    "light": (1280, "light"),
    "dark": (1280, "dark"),
    "narrow": (420, "light"),
}
LOOK = """JSON.stringify({
  height: document.documentElement.scrollHeight,
  width: document.documentElement.scrollWidth,
  figures: document.querySelectorAll('figure').length,
  blank: [...document.querySelectorAll('figure')].filter(
    figure => !figure.querySelector('img')?.naturalWidth).map(figure => figure.id),
})"""
MESSAGES = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
SECONDS = 60


class Tab:
    """A tab of a browser, controlled by the DevTools protocol.

    Args:
        connection: the connection to the tab.
    """

    def __init__(self, connection: ClientConnection):
        self._connection = connection
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events received are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._connection.send(json.dumps(message))
        while True:
            reply = json.loads(self._connection.recv(timeout=SECONDS))
            if reply.get("id") == self._number:
                return reply["result"]
            self.events.append(reply)

    def wait(self, event: str) -> None:
        """Waits until an event is received."""
        while event not in (received["method"] for received in self.events):
            self.events.append(json.loads(self._connection.recv(timeout=SECONDS)))


def chromium() -> str | None:
    """Returns the path of the browser, or None if it is not installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def browser() -> Iterator[str]:
    """Starts headless Chromium; yields the address of its first tab."""
    program = chromium()
    if program is None:
        sys.exit(
            "error: chromium is not installed; on Debian: apt-get install chromium"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        line = [program, "--headless", "--no-sandbox", "--disable-gpu"]
        line += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
        with subprocess.Popen(
            [*line, "about:blank"], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            address = next(x for x in process.stderr if "ws://" in x).split()[-1]
            try:
                with connect(address, max_size=None) as connection:
                    tabs = Tab(connection).call("Target.getTargets")["targetInfos"]
                tab = next(x["targetId"] for x in tabs if x["type"] == "page")
                host = address.split("/devtools")[0]
                yield f"{host}/devtools/page/{tab}"
            finally:
                process.terminate()


def look(tab: Tab, page: str, width: int, scheme: str) -> tuple[bytes, list[str]]:
    """Returns a screenshot of the page, and its faults."""
    tab.events.clear()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    tab.call("Emulation.setEmulatedMedia", features=[feature])
    _resize(tab, width, 800)
    tab.call("Page.navigate", url=page)
    tab.wait("Page.loadEventFired")
    found = tab.call("Runtime.evaluate", expression=LOOK)
    seen = json.loads(found["result"]["value"])
    _resize(tab, width, seen["height"])
    shot = tab.call("Page.captureScreenshot", captureBeyondViewport=True)
    return base64.b64decode(shot["data"]), list(_wrong(tab, page, width, seen))


def _resize(tab: Tab, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", **size)


def _wrong(tab: Tab, page: str, width: int, seen: dict[str, Any]) -> Iterator[str]:
    for event in tab.events:
        if event["method"] in MESSAGES:
            yield f"console: {json.dumps(event['params'])[:300]}"
        if event["method"] == "Network.requestWillBeSent":
            url = event["params"]["request"]["url"]
            if url != page and not url.startswith("data:"):
                yield f"requests {url}"
    yield from (f"{name} is not drawn" for name in seen["blank"])
    if not seen["figures"]:
        yield "has no figure"
    if seen["width"] > width:
        yield f"is {seen['width']} pixels wide in a window of {width}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args(arguments)
    page = options.page.absolute().as_uri()
    wrong = []
    with browser() as address, connect(address, max_size=None) as connection:
        tab = Tab(connection)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        for name, setting in SETTINGS.items():
            shot, found = look(tab, page, *setting)
            (options.out / f"{name}.png").write_bytes(shot)
            print(f"{name}: {len(found)} faults")
            wrong += [f"{name}: {fault}" for fault in found]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
