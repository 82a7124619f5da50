"""The report of one or several sections: a self-contained HTML page, Markdown with its figures, CSV and JSON."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.report.figures import Pictures, draw_figures
from experiments.report.gains import KEYS as GAINS
from experiments.report.gains import MEAN_KEPT
from experiments.report.html import to_html
from experiments.report.markdown import EXPLAINED, parts
from experiments.report.results import matrix_of, run_seconds, task_key, task_names
from experiments.report.routing import FINDINGS, WITH_ROUTER
from experiments.report.sections import settings
from experiments.report.svg import Figure
from experiments.report.theme import STYLE, THEME
from experiments.report.token_sections import EXACT
from share_jax.metrics import NAMES as MEASURES
from share_jax.storage.atomic_write import replace_text

HTML, MARKDOWN, CSV, JSON, FIGURES = "report.html", "report.md", "report.csv", "report.json", "figures"
TITLE = "Results"
APART = (
    "Every section is one stream of tasks under one protocol with one set of settings. Figures of different sections "
    "are not to be compared."
)
OF_TOKENS = (WITH_ROUTER, MEAN_KEPT)
COLUMNS = ("experiment", "preset", "protocol", "settings", "method", "seed", "quantity", "after", "on", "value")
LAYOUT = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1160px;margin:0 auto;padding:24px 16px 64px}
h1,h2,h3,h4{line-height:1.25;margin:1.9em 0 .6em;overflow-wrap:anywhere}
h1{font-size:1.9rem;margin-top:.4em}h2{font-size:1.45rem;border-top:2px solid var(--grid);padding-top:1em}
h3{font-size:1.15rem}h4{font-size:1rem}
p{max-width:72ch;margin:.7em 0;overflow-wrap:anywhere}
a{color:var(--link)}nav ul{padding-left:1.2em;margin:.4em 0}
code,pre{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.875em}
code{background:var(--raised);border-radius:3px;padding:.1em .3em}
pre{background:var(--raised);border-radius:6px;padding:12px;line-height:1.5}
pre code{padding:0;white-space:pre-wrap;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%}.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;line-height:1.35;font-variant-numeric:tabular-nums;margin:.8em 0}
th,td{padding:6px 10px;border-bottom:1px solid var(--grid);text-align:right;vertical-align:top;white-space:nowrap}
thead th{vertical-align:bottom;color:var(--soft);font-weight:600;white-space:normal;min-width:4.2em}
th:first-child,td:first-child,td.text,th.text{text-align:left}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper)}
tbody th.long{white-space:normal;overflow-wrap:anywhere;min-width:9.5rem;max-width:13rem}
td.text{white-space:normal;min-width:16em}
figure{margin:1.2em 0;max-width:560px}figcaption{font-size:.85rem;color:var(--soft);line-height:1.45;margin-top:.4em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:20px 28px;align-items:end}
.grid figure{margin:.4em 0}.grid figcaption{position:absolute;left:-9999px}
@media (max-width:480px){main{padding:14px 12px 40px}h1{font-size:1.5rem}h2{font-size:1.25rem}
th,td{padding:5px 7px}}
@media print{.scroll{overflow:visible}main{max-width:none}}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser that opens the page may fetch nothing and run nothing."""


def write_page(sections: Sequence[Mapping[str, Any]], folder: str | os.PathLike[str]) -> Path:
    """Writes the report's files into `folder`, and returns the HTML page's path.

    Args:
        sections: from `load_sections`.
        folder: made if it is not there; files of these names are replaced.
    """
    target = Path(folder)
    (target / FIGURES).mkdir(parents=True, exist_ok=True)
    drawn = [draw_figures(section, _prefix(i, section)) for i, section in enumerate(sections)]
    figures = [figure for pictures in drawn for place in pictures.values() for figure in place]
    for figure in figures:
        replace_text(figure.file(), target / _source(figure))
    markdown = _markdown(sections, drawn)
    replace_text(markdown, target / MARKDOWN)
    replace_text(_csv(sections), target / CSV)
    content = {"schema": 1, "sections": list(sections)}
    replace_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", target / JSON)
    replace_text(_html(sections, markdown, {_source(figure): figure for figure in figures}), target / HTML)
    return target / HTML


def write_html(section: Mapping[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Writes the HTML page of one run into `folder`, and returns its path.

    Args:
        section: the content of `results.json`.
        folder: made if it is not there.
    """
    drawn = draw_figures(section, _prefix(0, section))
    figures = {_source(figure): figure for place in drawn.values() for figure in place}
    page = Path(folder) / HTML
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_text(_html([section], _markdown([section], [drawn]), figures), page)
    return page


def _name(section: Mapping[str, Any]) -> str:
    return f"{section['experiment']}, {section['preset']}, {section['protocol']}"


def _names(sections: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each section; those that would have one name tell in what flags they differ, or are numbered."""
    words = [settings(section).split(" --")[1:] for section in sections]
    names = []
    for section, own in zip(sections, words, strict=True):
        alike = [other for each, other in zip(sections, words, strict=True) if _name(each) == _name(section)]
        told = [word for word in own if not all(word in other for other in alike)]
        name = ", ".join([_name(section), *(f"{' '.join(word.split())}" for word in told)])
        names.append(f"{name} ({names.count(name) + 1})" if name in names else name)
    return names


def _prefix(index: int, section: Mapping[str, Any]) -> str:
    words = "".join(letter if letter.isalnum() else "-" for letter in section["experiment"].lower())
    return f"{index + 1}-{words}-"


def _source(figure: Figure) -> str:
    return f"{FIGURES}/{figure.name}.svg"


def _image(figure: Figure) -> str:
    alt, caption = (text.replace("[", "(").replace("]", ")").replace('"', "'") for text in (figure.alt, figure.caption))
    return f'![{alt}]({_source(figure)} "{caption}")'


def _markdown(sections: Sequence[Mapping[str, Any]], drawn: Sequence[Pictures]) -> str:
    blocks = [f"# {TITLE if len(sections) > 1 else _name(sections[0])}"]
    if len(sections) > 1:
        blocks.append(APART)
    for name, section, pictures in zip(_names(sections), sections, drawn, strict=True):
        images = {place: [_image(figure) for figure in found] for place, found in pictures.items()}
        _, *rest = parts(section, images)
        blocks.append(f"## {name}" if len(sections) > 1 else "")
        blocks += [_lower(block) if len(sections) > 1 else block for block in rest]
    return "\n\n".join(block for block in (*blocks, *EXPLAINED) if block) + "\n"


def _lower(block: str) -> str:
    """A heading one level down; any other block as it is."""
    return f"#{block}" if block.startswith("#") else block


def _html(sections: Sequence[Mapping[str, Any]], markdown: str, figures: Mapping[str, Figure]) -> str:
    body = to_html(markdown, figures)
    title = TITLE if len(sections) > 1 else _name(sections[0])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{THEME}{LAYOUT}{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{_contents(body)}\n</main>\n</body>\n</html>\n"
    )


def _contents(body: str) -> str:
    """The body with a list of its second-level headings after the first heading."""
    import re

    entries = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in entries)
    head, rest = body.split("</h1>", 1)
    return f'{head}</h1>\n<nav aria-label="Contents"><ul>{links}</ul></nav>{rest}'


def _csv(sections: Sequence[Mapping[str, Any]]) -> str:
    """One row per value: long, so that any tool can turn it as it likes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for section in sections:
        same = (section["experiment"], section["preset"], section["protocol"], settings(section))
        writer.writerows((*same, *row) for row in _rows(section))
    return out.getvalue()


def _rows(section: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    tasks = task_names(section)
    for name, method in section["methods"].items():
        for key, value in method["params"].items():
            yield name, "", f"params.{key}", "", "", value
        for key, value in method["bytes"].items():
            yield name, "", f"bytes.{key}", "", "", value
        for run in method["runs"]:
            seed, extra = run["seed"], run.get("extra", {})
            yield from ((name, seed, key, "", "", run[key]) for key in MEASURES if run.get(key) is not None)
            yield from ((name, seed, key, "", "", extra[key]) for key in FINDINGS if extra.get(key) is not None)
            yield name, seed, "seconds", "", "", run_seconds(run["seconds"])
            for i, row in enumerate(matrix_of(run)):
                for j, value in enumerate(row):
                    if value == value:
                        yield name, seed, "accuracy", tasks[i], tasks[j], float(value)
            yield from ((name, seed, key, "", "", extra[key]) for key in OF_TOKENS if extra.get(key) is not None)
            for key in ("error_bound", "measured_error", *GAINS, EXACT):
                yield from ((name, seed, key, tasks[-1], task, value) for task, value in extra.get(key, {}).items())
            for number, task in enumerate(tasks, start=1):
                if (value := run["seconds"].get(task_key(number))) is not None:
                    yield name, seed, "seconds_per_task", task, "", value
