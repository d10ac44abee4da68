"""The report and the dashboard in headless chromium; screenshots stay in screenshots/."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from slopesearch.report.page import tables_of, write_page
from slopesearch.report.plots import PLOTS
from slopesearch.report.summary import Verdicts
from tests.conftest import QUICK
from tests.synthetic import study_of
from tests.test_answers_panel import CONFIRMED, compared
from tests.test_verdicts import answer_of, side_of

pytestmark = pytest.mark.browser
SCREENSHOTS = Path(__file__).parents[1] / "screenshots"
SIZES = [(1440, "light"), (390, "dark")]

# Each figure that has no mark of any kind, and each whose labels lie on one another.
EMPTY = """() => [...document.querySelectorAll("[data-figure]")].filter(place =>
  !place.querySelector(".trace path, .trace .point, .hm image, .bars path"))
  .map(place => place.dataset.figure)"""
OVERLAPPING = """() => [...document.querySelectorAll("[data-figure]")].flatMap(place =>
  [".xtick", ".x2tick", ".x3tick", ".ytick", ".y2tick", ".y3tick", ".annotation", ".legend"].filter(kind => {
    const boxes = [...place.querySelectorAll(kind + " text")].map(label => label.getBoundingClientRect());
    return boxes.some((a, i) => boxes.slice(i + 1).some(b =>
      a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1));
  }).map(kind => place.dataset.figure + " " + kind))"""
WIDER = "() => document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless chromium, or a skip."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


def complaints(page: Page) -> list[str]:
    """What the page says on the console, and what it could not load, from now on.

    A request that was under way when the page was left, as one that polls, is no complaint.
    """
    heard: list[str] = []

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":
            heard.append(f"failed: {request.url}")

    page.on("console", lambda message: heard.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", failed)
    return heard


def test_the_report_draws_every_figure_within_the_width(browser: Browser, tmp_path: Path) -> None:
    study = study_of(400)
    write_page(study, tables_of(study), tmp_path / "report.html")
    SCREENSHOTS.mkdir(exist_ok=True)
    for width, scheme in SIZES:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            offline=True,
            has_touch=width < 600,
        )
        page = context.new_page()
        heard = complaints(page)
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        page.screenshot(path=SCREENSHOTS / f"report-{width}-{scheme}.png", full_page=True)
        assert page.locator("[data-figure]").count() == len(PLOTS)
        assert page.evaluate(EMPTY) == []
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate(WIDER) <= 0
        if (width, scheme) == (1440, "light"):  # the colours follow the system while the page is open
            ink = "() => getComputedStyle(document.querySelector('.xtick text')).fill"
            before = page.evaluate(ink)
            page.emulate_media(color_scheme="dark")
            page.wait_for_function(f"before => ({ink})() !== before", arg=before)
            page.screenshot(path=SCREENSHOTS / "report-1440-dark.png", full_page=True)
        assert heard == []
        context.close()


# Every text whose contrast with what lies behind it is below 4.5, as the rules for readers ask.
FAINT = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => parts(colour).slice(0, 3).map(x => x / 255)
    .map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor, alpha = parts(colour)[3];
      if (alpha === undefined || alpha > .9) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const labels = ".xtick text, .ytick text, .legendtext, .xtitle, .ytitle";  // the page gives their colour
  return [...document.querySelectorAll("main *, nav a")].filter(node =>
    [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())
    && node.getClientRects().length && node.tagName !== "SCRIPT"
    && (!node.closest("[data-figure]") || node.matches(labels))).filter(node => {
    const style = getComputedStyle(node), ink = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    return (a + .05) / (b + .05) < 4.5;
  }).map(node => node.textContent.trim().slice(0, 40));
}"""
LAST_CARD = "() => [...document.querySelectorAll('.cards li')].at(-1).getBoundingClientRect().bottom"


def test_the_first_screen_holds_the_six_answers(browser: Browser, tmp_path: Path) -> None:
    study = study_of(120)
    norm = answer_of(
        side_of("before", 1, 0.01, 0), side_of("after", 1.02, 0.05, 1), side_of("none", 1.2, 0.01, 2),
        question="norm",
    )  # fmt: skip
    verdicts = Verdicts(CONFIRMED, compared(norm))
    write_page(study, tables_of(study), tmp_path / "report.html", verdicts)
    for width, height, scheme in ((1440, 900, "light"), (1440, 900, "dark"), (390, 844, "light")):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            offline=True,
            has_touch=width < 600,
        )
        page = context.new_page()
        heard = complaints(page)
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        page.screenshot(path=SCREENSHOTS / f"answers-{width}-{scheme}.png")
        assert page.locator(".cards li").count() == 6
        assert page.evaluate(LAST_CARD) <= height
        assert page.evaluate(WIDER) <= 0
        assert page.evaluate(EMPTY) == []
        assert page.evaluate(FAINT) == []
        hint = page.locator("#confirmed .hint").first
        hidden = page.evaluate(
            "(box => box.scrollWidth > box.clientWidth + 1)(document.querySelector('#confirmed .scroll'))"
        )
        assert hint.is_visible() == hidden
        assert hint.is_visible() or width > 600
        assert not page.locator("#asked table").is_visible()  # folded
        page.locator("#asked summary").click()
        assert page.locator("#asked table").is_visible()
        assert heard == []
        context.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_the_dashboard_reads_along_while_a_study_runs(browser: Browser, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "slopesearch"]
    running = subprocess.Popen(
        [*command, "optimize", *QUICK, "--trials", "15"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    next(line for line in running.stdout if line.startswith("[2/"))
    port = free_port()
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [*command, "dashboard", "--port", str(port)], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/meta", timeout=10).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        heard = complaints(page)
        for part, words in (("", "val_accuracy"), ("/trials", "Trial 1")):
            page.goto(f"{address}/dashboard/studies/1{part}")
            page.get_by_text(words).first.wait_for(timeout=120_000)
        assert "lr" in page.inner_text("body")
        rest = running.stdout.read()
        assert running.wait(180) == 0
        assert "15 trials" in rest
        page.goto(f"{address}/dashboard/studies/1")
        page.get_by_text("The completed trials of each activation").wait_for(timeout=120_000)
        page.screenshot(path=SCREENSHOTS / "dashboard.png", full_page=True)
        page.goto(f"{address}/dashboard/studies/1/note")
        page.get_by_text("python -m slopesearch optimize --name digits-mlp").wait_for(timeout=120_000)
        assert heard == []
        page.close()
    finally:
        server.terminate()
        server.wait(10)
        log.close()
        running.kill()
        running.wait()
        running.stdout.close()
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert not re.search(r'" 5\d\d ', said)
