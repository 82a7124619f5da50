"""The report's page in a real browser: what it fetches, how it fits a telephone, and that it needs no JavaScript."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_results import write_two

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser: apt install chromium chromium-driver (Debian) to run these"
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SMALLEST = 9.5
"""Pixels that a letter of a figure must have on a telephone."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module", params=["with JavaScript", "without JavaScript"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if request.param == "without JavaScript":
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get("data:text/html,<title>without</title><script>document.title='with'</script>")
        assert driver.title == request.param.split()[0]
        yield driver
    finally:
        driver.quit()


def open_at(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    """Opens the page in a window of this width and theme, and forgets what was logged before."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())


def requests_of(browser: Any) -> list[str]:
    """What was asked for since the page was opened, but for the browser's own parts."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("chrome://")]


FIGURES = """
return Array.from(document.querySelectorAll("figure svg")).map(svg => {
  const box = svg.getBoundingClientRect();
  const sizes = Array.from(svg.querySelectorAll("text")).map(text =>
    parseFloat(getComputedStyle(text).fontSize) * box.width / svg.viewBox.baseVal.width);
  return [box.width, box.height, Math.min(...sizes), box.right];
});"""
WIDTHS = (
    "return [document.documentElement.scrollWidth, document.body.scrollWidth, document.documentElement.clientWidth]"
)


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_shows_every_figure_and_asks_for_nothing(browser: Any, page: Path, width: int) -> None:
    open_at(browser, page, width)
    assert browser.get_log("browser") == []
    assert requests_of(browser) == [page.as_uri()]
    root, body, seen = browser.execute_script(WIDTHS)
    assert root <= seen <= width
    assert body <= width
    figures = browser.execute_script(FIGURES)
    assert len(figures) == page.read_text().count("<figure")
    for wide, tall, letter, right in figures:
        assert wide > 100
        assert tall > 60
        assert letter >= SMALLEST
        assert right <= width


def test_a_wide_table_scrolls_in_its_own_frame(browser: Any, page: Path) -> None:
    open_at(browser, page, 400)
    frames = browser.execute_script(
        "return Array.from(document.querySelectorAll('div.scroll')).map(e => [e.scrollWidth, e.clientWidth])"
    )
    assert all(inside <= 400 for _, inside in frames)
    assert sum(whole > inside for whole, inside in frames) >= 4


COLOURS = """
const paper = getComputedStyle(document.body).backgroundColor;
const inks = ["p", "td", "thead th", "svg.fig text", "svg.fig .soft", "figcaption", "a"].map(
  name => { const style = getComputedStyle(document.querySelector(name));
            return name.startsWith("svg") ? style.fill : style.color; });
return [paper, ...inks];"""


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.1)."""
    parts = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_in_light_and_in_dark(browser: Any, page: Path) -> None:
    papers = []
    for scheme in ("light", "dark"):
        open_at(browser, page, 800, scheme)
        paper, *inks = browser.execute_script(COLOURS)
        papers.append(luminance(paper))
        for ink in inks:
            low, high = sorted((luminance(ink), luminance(paper)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, ink)
    assert papers[0] > 0.9
    assert papers[1] < 0.05
