"""The built site: complete, every link leads somewhere, and nothing is asked of another host."""

import os
import re
import runpy
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from pages import PAGES, ROOT

WRITER = runpy.run_path(str(ROOT / "docs" / "write_public.py"))
FIRST = "docs/index.md"
ASKED = ("guides/saving", "guides/tuning", "guides/serving", "guides/faults", "questions")
"""Pages that answer the five questions of the start page."""


class Links(HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href", ""))
        self.loaded += [given[name] for name in ("src", "srcset", "poster") if given.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly; skipped where the tools of the extra `docs` are not installed."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "no_proxy": "", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[str, Links]:
    paths = sorted(site.rglob("*.html"))
    return {path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8")) for path in paths}


@pytest.mark.slow
def test_every_public_name_has_a_place(site: Path, parsed: dict[str, Links]) -> None:
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    known = {line.split()[0]: line.split()[3] for line in zlib.decompress(inventory).decode().splitlines()}
    for stub in (ROOT / "share_jax").glob("*/__init__.pyi"):
        for name, _ in WRITER["stub_names"](stub.parent):
            full = f"share_jax.{stub.parent.name}.{name}"
            assert full in known
            page, place = known[full].replace("$", full).split("#")
            assert page == f"reference/{stub.parent.name}.html"
            assert place in parsed[page].ids
    listed = parsed["public.html"].links
    for name, _ in WRITER["stub_names"](ROOT / "share_jax"):
        assert any(link.endswith((f".{name}", f"reference/{name}.html")) for link in listed), name


@pytest.mark.slow
def test_examples_of_docstrings_are_shown_as_code(site: Path) -> None:
    for path in sorted((site / "reference").glob("*.html")):
        assert not re.search(r"<blockquote>\s*<blockquote>", path.read_text(encoding="utf-8")), path.name
    assert '<span class="gp">&gt;&gt;&gt; </span>' in (site / "reference" / "bank.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_link_leads_to_a_page_and_a_place_on_it(parsed: dict[str, Links], site: Path) -> None:
    for page, found in parsed.items():
        if page == "404.html":  # served from any address, so its links begin at the root
            continue
        for link in found.links:
            target, place = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", target):
                continue
            path = (site / page).parent.joinpath(target).resolve() if target else site / page
            path = path / "index.html" if path.is_dir() else path
            assert path.exists(), (page, link)
            if place and path.suffix == ".html":
                assert place in parsed[path.relative_to(site.resolve()).as_posix()].ids, (page, link)


@pytest.mark.slow
def test_every_picture_and_script_of_a_page_is_in_the_site(parsed: dict[str, Links], site: Path) -> None:
    assert sum(place.endswith(".svg") for place in parsed["index.html"].loaded) == 2
    for page, found in parsed.items():
        own = [urldefrag(unquote(place)).url.partition("?")[0] for place in found.loaded if page != "404.html"]
        for place in (place for place in own if place and not re.match(r"[a-z]+:", place)):
            assert (site / page).parent.joinpath(place).is_file(), (page, place)


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(parsed: dict[str, Links], site: Path) -> None:
    for page, found in parsed.items():
        assert [place for place in found.loaded if re.match(r"([a-z]+:)?//", place)] == [], page
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")) == []
    assert not [path for path in site.rglob("*.html") if "arithmatex" in path.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_the_five_questions_are_answered_within_two_clicks(parsed: dict[str, Links]) -> None:
    links = {urldefrag(link).url for link in parsed["index.html"].links}
    assert {f"{page}.html" for page in ASKED} <= links


def test_links_between_pages_that_are_written_by_hand_lead_to_files() -> None:
    """Without a build: what it generates is known by its folder."""
    made = re.compile(r"reference/\w+\.md|notebooks/\w+\.md|changelog\.md|benchmarks/\w+\.md|contributing/\w+\.md")
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            target = urldefrag(link).url
            if not target or re.match(r"[a-z]+:", target):
                continue
            path = os.path.normpath(str(Path(page).parent / target))
            assert (ROOT / path).exists() or made.fullmatch(path.removeprefix("docs/")), (page, link)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^ +- (?:[\w ]+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    written = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    parts = {name for text in PAGES.values() for name in re.findall(r'--8<-- "([\w/.-]+)"', text)}
    assert parts <= written
    assert written - parts <= listed
    for page in listed:
        assert page in written or re.match(r"notebooks/|benchmarks/|contributing/|changelog", page), page
