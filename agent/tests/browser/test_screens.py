"""Every screen, wide and narrow, light and dark."""

from __future__ import annotations

from importlib.resources import files

import pytest
from screens import SCREENS, Screen

WIDE, NARROW, NARROWEST = 1440, 390, 360
SCHEMES = ["light", "dark"]


@pytest.fixture(scope="session")
def axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


def grave(page, axe: str) -> list[str]:
    """What axe finds that keeps somebody from using the page, a line each."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{broken['id']} ({broken['impact']}): {node['html'][:200]} {node['failureSummary']}"
        for broken in found["violations"]
        if broken["impact"] in ("serious", "critical")
        for node in broken["nodes"]
    ]


def overhang(page) -> int:
    """By how much the page is wider than the window, px."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def check(page, axe: str) -> None:
    """Everybody can use it, however wide their window."""
    for width in [WIDE, NARROW]:
        page.set_viewport_size({"width": width, "height": 900})
        assert overhang(page) == 0, f"{page.url} is too wide for {width} px"
        problems = grave(page, axe)
        assert not problems, f"{page.url} at {width} px:\n" + "\n".join(problems)
    page.set_viewport_size({"width": NARROWEST, "height": 900})
    assert overhang(page) == 0, f"{page.url} is too wide for {NARROWEST} px"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_every_screen_can_be_used(lively, visitor, axe, screen: Screen, scheme: str) -> None:
    service, filled = lively
    looker = visitor(service.url, color_scheme=scheme)
    answer = looker.goes(screen.at(filled))
    assert answer.status == screen.code
    looker.sees(screen.shows)
    # Forms too, which are behind a word each.
    looker.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    check(looker.page, axe)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_door_can_be_used(guarded, visitor, axe, scheme: str) -> None:
    stranger = visitor(guarded.url, color_scheme=scheme)
    stranger.goes("/")
    assert stranger.page.url.endswith("/sign-in")
    check(stranger.page, axe)
    stranger.page.get_by_label("Token").fill("rmr_wrong_wrong")
    stranger.page.get_by_role("button", name="Sign in").click()
    stranger.sees("this token opens nothing")
    check(stranger.page, axe)
