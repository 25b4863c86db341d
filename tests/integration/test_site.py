"""The documentation's site: built strictly, with nothing from elsewhere; in a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.consumer_runs import variables
from docs.site import check
from docs.site.__main__ import source_of
from tests.support import web
from tests.support.browser import NAMES, Browser, browser, find_browser
from tests.support.consumers import environment_of_lock
from tests.support.locks import alone
from tests.support.source import REPOSITORY
from vim_deploy.errors import CATALOG

LOCK = REPOSITORY / "requirements" / "docs.lock"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
#: Pages that are looked at in the browser: of every kind one, those with wide tables among them.
SHOWN = (
    *("", "tour/", "errors/", "runtimes/", "commands/export/", "api/functions/", "api/cpp/"),
    *("scaling/", "results/scaling/", "architecture/", "changelog/", "tested/"),
)
#: What opens the search, as far as it can be seen: on a phone it is another one.
_SEEN = (
    "[...document.querySelectorAll('.md-search__button, label[for=__search]')]"
    ".filter(item => item.offsetWidth > 0)"
)


@pytest.fixture(scope="module")
def site(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; the command says that nothing is wrong with it."""
    environment = environment_of_lock(pytestconfig, LOCK)
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    folder = shared / "documentation"
    with alone(shared / "documentation.lock"):
        if not folder.exists():
            done = subprocess.run(
                [sys.executable, "-m", "docs.site", "build", "--folder", str(folder)],
                cwd=REPOSITORY,
                env=variables(environment),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.endswith(f"built {folder}\n")
    return folder


def test_every_page_is_built_with_a_title_of_its_own(site: Path) -> None:
    titles: dict[str, str] = {}
    pages_of_site = source_of(site) / "pages"
    for source in sorted(pages_of_site.rglob("*.md")):
        name = source.relative_to(pages_of_site).with_suffix("")
        place = site / (name.parent if name.name == "index" else name) / "index.html"
        page = check.read(place)
        assert titles.setdefault(page.title, str(name)) == str(name), page.title


def test_every_error_can_be_linked_and_found(site: Path) -> None:
    page = check.read(site / "errors" / "index.html")
    assert {code.lower() for code in CATALOG} <= page.names
    items = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    found = {item["location"] for item in items}
    assert {f"errors/#{code.lower()}" for code in CATALOG} <= found


def test_there_is_a_link_for_every_task(site: Path) -> None:
    links = [link for link in check.read(site / "index.html").links if not link.startswith("#")]
    assert len(links) > 40


def test_what_is_wrong_is_noticed(site: Path, tmp_path: Path) -> None:
    shutil.copytree(site / "install", tmp_path / "install")
    (tmp_path / "index.html").write_text(
        "<title> </title><a href='absent/'>a</a><a href='install/#absent'>a</a>"
        "<a href='https://elsewhere.org/'>fine</a><a href='https://here.org/install/'>fine</a>"
        "<script src='https://cdn.org/x.js'></script><link rel='stylesheet' href='//cdn.org/x.css'>"
        "<p style='background: url(https://cdn.org/x.png)'></p><img src='absent.png'>"
        "<style>@import 'https://cdn.org/y.css'</style>",
        encoding="utf-8",
    )
    (tmp_path / "x.css").write_text("a { src: url(https://cdn.org/font.woff2) }", encoding="utf-8")
    found = [
        item for item in check.faults(tmp_path, "https://here.org/") if "install" not in item[:7]
    ]
    assert found == [
        "index.html has no title",
        "index.html: absent/ leads to nothing",
        "index.html: install/#absent leads to no place of install/index.html",
        "index.html fetches https://cdn.org/x.js",
        "index.html fetches //cdn.org/x.css",
        "index.html fetches https://cdn.org/x.png",
        "index.html fetches absent.png, which is not there",
        "index.html fetches https://cdn.org/y.css",
        "x.css fetches https://cdn.org/font.woff2",
    ]


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """One browser for all tests."""
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser on the PATH ({', '.join(NAMES)})")
    with browser(program) as running:
        yield running


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with web.served(site) as (found, _):
        yield found


@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_and_ask_nobody(window: Browser, address: str, size: str) -> None:
    for page in SHOWN:
        window.open(address + page, *SIZES[size], phone=size == "phone")
        width = window.ask("document.documentElement.scrollWidth")
        assert width <= SIZES[size][0], f"{page} is {width} wide"
        assert [url for url in window.requests if not url.startswith((address, "data:"))] == []
        assert window.messages == [], page


@pytest.mark.parametrize("size", SIZES)
def test_search_finds_an_error(window: Browser, address: str, size: str) -> None:
    window.open(address, *SIZES[size], phone=size == "phone")
    window.until(f"({_SEEN}).length === 1")
    window.ask(f"({_SEEN})[0].click()")
    window.until("document.activeElement?.shadowRoot?.activeElement?.tagName === 'INPUT'")
    window.call("Input.insertText", text="VIM-401")
    results = "[...document.activeElement.shadowRoot.querySelectorAll('a')].map(a => a.href)"
    window.until(f"({results}).length > 0")
    assert window.ask(results)[0].startswith(f"{address}errors/")
    assert "#vim-401" in window.ask(results)[0]
    assert [url for url in window.requests if not url.startswith((address, "data:"))] == []
    assert window.messages == []


def test_the_menu_opens_on_a_phone(window: Browser, address: str) -> None:
    menu = "document.querySelector('.md-sidebar--primary').getBoundingClientRect()"
    window.open(f"{address}errors/", *SIZES["phone"], phone=True)
    assert window.ask(f"{menu}.right") <= 0
    window.ask("document.querySelector('.md-header label[for=__drawer]').click()")
    window.until(f"{menu}.left >= 0 && {menu}.right <= innerWidth")
    links = "[...document.querySelectorAll('.md-nav--primary a')].map(a => a.href)"
    assert f"{address}tour/" in window.ask(links)


def test_a_copied_block_has_its_commands_alone(window: Browser, address: str) -> None:
    window.open(f"{address}errors/", *SIZES["desktop"], phone=False)
    block = "document.querySelector('.language-console code')"
    shown = window.ask(f"{block}.innerText")
    assert "$ mkdir -p work" in shown
    assert "error VIM-204" in shown
    # What the button does while it copies.
    window.ask(f"{block}.setAttribute('data-md-copying', '')")
    copied = window.ask(f"{block}.innerText").split("\n")
    assert [line.strip() for line in copied if line.strip()] == [
        line.removeprefix("$ ") for line in shown.split("\n") if line.startswith("$ ")
    ]


def test_dark_pages_are_dark(window: Browser, address: str) -> None:
    brightness = {}
    for dark in (False, True):
        window.open(f"{address}install/", *SIZES["phone"], phone=True, dark=dark)
        brightness[dark] = float(np.asarray(window.picture()).mean())
    assert brightness[True] < 80 < 180 < brightness[False]
