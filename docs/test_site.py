"""The built site in a real browser: pages render, the search finds, images and formulas load.

    sphinx-build -W docs SITE && pytest docs/test_site.py --site SITE

Skipped where Chromium or its driver is absent.
"""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed (extra docs)")
from selenium import webdriver  # noqa: E402  (after the check that it is there)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

SECONDS = 30


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(request):
    """Return the folder of the site and the address where it is served."""
    folder = Path(request.config.getoption("--site"))
    if not (folder / "index.html").is_file():
        pytest.skip(f"no site in {folder}: build it with sphinx-build docs {folder}")
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Start Chromium without a window."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    # No name but the server's resolves: the site must not need the network.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        chrome.set_page_load_timeout(SECONDS)
        yield chrome


def test_every_page_renders_with_its_images(site, browser):
    folder, address = site
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.html"))
    pages = [page for page in pages if not page.startswith(("_static", "search"))]
    assert {"index.html", "theory.html", "tutorials/plot_cut.html"} <= set(pages)
    for page in pages:
        browser.get(f"{address}/{page}")
        WebDriverWait(browser, SECONDS).until(
            lambda chrome: any(title.text for title in chrome.find_elements(By.TAG_NAME, "h1")),
            page,
        )
        broken = browser.execute_script(
            "return Promise.all([...document.images].map("
            "i => { i.loading = 'eager'; return i.decode().then(() => '', () => i.src); }))"
            ".then(sources => sources.filter(source => source));"
        )
        assert broken == [], page
    assert [entry for entry in browser.get_log("browser") if "127.0.0.1" in entry["message"]] == []


def test_tutorials_have_figures(site, browser):
    _, address = site
    for name in ("plot_cut", "plot_embedding", "plot_collapse", "plot_saddle"):
        browser.get(f"{address}/tutorials/{name}.html")
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('article img')].map(i => i.naturalWidth)"
        )
        assert max(sizes) > 300, name


def test_formulas_are_set(site, browser):
    browser.get(f"{site[1]}/theory.html")
    wait = WebDriverWait(browser, SECONDS)
    wait.until(lambda chrome: len(chrome.find_elements(By.TAG_NAME, "mjx-container")) > 20)
    assert browser.find_elements(By.TAG_NAME, "mjx-merror") == []


def test_search_finds_max_cut(site, browser):
    browser.get(f"{site[1]}/search.html?q=max_cut")
    wait = WebDriverWait(browser, SECONDS)
    wait.until(lambda chrome: chrome.find_elements(By.CSS_SELECTOR, "#search-results li a"))
    links = browser.find_elements(By.CSS_SELECTOR, "#search-results li a")
    assert any("derand_fast.max_cut" in link.get_attribute("href") for link in links)


def test_links_inside_the_site_lead_somewhere(site):
    """Every relative link of every page is a file of the site."""
    from html.parser import HTMLParser

    folder, _ = site

    class Links(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("href", "src") and value]

    dead = []
    for page in folder.rglob("*.html"):
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        for link in links.found:
            path = link.split("#")[0].split("?")[0]
            if not path or ":" in path:
                continue
            target = folder / path.lstrip("/") if path.startswith("/") else page.parent / path
            if not target.exists():
                dead.append(f"{page.relative_to(folder)}: {link}")
    assert dead == []
