"""One browser and two services for all tests: an open one full of things, and one that asks who comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import FLAGS, PATIENCE, Service, browser, fill

BINARY = os.environ.get("REMORA_BINARY")
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [
        what
        for what, there in [
            ("REMORA_BINARY does not name the program", BINARY),
            ("no Chromium is installed: apt-get install chromium-headless-shell", browser()),
        ]
        if not there
    ]
    for item in items if missing else []:
        item.add_marker(pytest.mark.skip(reason="; ".join(missing)))


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        yield program
        program.close()


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service without `--auth`, in which something of everything has happened."""
    folder = tmp_path_factory.mktemp("lively")
    service = Service(BINARY, folder / "data", "--scenario", "urban-sensing")
    yield service, fill(service, folder)
    service.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    """A service that was never started before and asks who comes."""
    service = Service(BINARY, tmp_path / "data", "--auth", "--scenario", "urban-sensing")
    yield service
    service.stop()


class Visitor:
    """Somebody with a browser of their own, and whatever went wrong there."""

    def __init__(self, chromium, home: str, **looks) -> None:
        self.home, self.wrong = home, []
        looks = {"locale": "en-GB", "timezone_id": "UTC", "base_url": home, **looks}
        self.context = chromium.new_context(**looks)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._asked_back)

    def _said(self, message) -> None:
        # That a page is refused or missing is what some tests ask for.
        missing = message.text.startswith("Failed to load resource") and message.location["url"] == self.page.url
        if message.type in ("error", "warning") and not missing:
            self.wrong.append(f"{message.type} at {self.page.url}: {message.text}")

    def _asked(self, request) -> None:
        if not request.url.startswith((self.home, "data:")):
            self.wrong.append(f"{self.page.url} asked for {request.url}")

    def _asked_back(self, dialog) -> None:
        self.wrong.append(f"{self.page.url} opened a dialog: {dialog.message}")
        dialog.dismiss()

    def goes(self, path: str):
        """The answer to a page, shown."""
        return self.page.goto(path, wait_until="load")

    def signs_in(self, token: str) -> None:
        self.goes("/sign-in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="Overview", exact=True).wait_for()

    def opens(self, summary: str, within=None):
        """A form behind a word, the first that is called so."""
        form = (within or self.page).locator("details").filter(has=self.page.locator(f'summary:text-is("{summary}…")')).first
        form.locator("summary").click()
        return form

    def sees(self, text: str) -> None:
        """Waits until some text is there, without loading the page again."""
        self.page.get_by_text(text).first.wait_for()

    def text(self) -> str:
        return self.page.locator("main").inner_text()

    def leaves(self) -> None:
        self.context.close()
        assert not self.wrong, "\n".join(self.wrong)


@pytest.fixture
def visitor(chromium) -> Iterator:
    """Makes visitors, and looks at the end whether anything went wrong in their browsers."""
    all_of_them: list[Visitor] = []

    def make(home: str, **looks) -> Visitor:
        all_of_them.append(Visitor(chromium, home, **looks))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one.leaves()
