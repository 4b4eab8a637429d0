"""Every screen as a picture, over a quickstart at work: `pictures.py REMORA FOLDER [light|dark]`."""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from screens import SCREENS
from service import FLAGS, Quickstart, browser, fill

WIDTHS = {"wide": 1440, "narrow": 390}
#: What is longer is cut, px.
HIGHEST = 1600
#: How long the simulated cluster works before it is looked at, seconds.
WORKING = 20


def take(service: Quickstart, filled: dict[str, str], folder: Path, scheme: str) -> None:
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        looks = {"base_url": service.url, "color_scheme": scheme, "locale": "en-GB", "timezone_id": "UTC"}
        page = program.new_context(**looks).new_page()
        screenshots = page.context.new_cdp_session(page)
        for screen in SCREENS:
            for name, width in WIDTHS.items():
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(screen.at(filled))
                # The first words of the service have come then.
                page.wait_for_timeout(1500)
                height = min(page.evaluate("document.documentElement.scrollHeight"), HIGHEST)
                clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
                wanted = {"format": "webp", "quality": 80, "captureBeyondViewport": True, "clip": clip}
                picture = base64.b64decode(screenshots.send("Page.captureScreenshot", wanted)["data"])
                path = folder / f"{screen.name}-{name}.webp"
                path.write_bytes(picture)
                print(f"{path}: {len(picture) / 1000:.0f} kB")
        program.close()


def main(binary: str, folder: str, scheme: str = "light") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        service = Quickstart(binary, Path(work) / "quickstart")
        try:
            filled = fill(service, Path(work))
            time.sleep(WORKING)
            take(service, filled, Path(folder), scheme)
        finally:
            service.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
