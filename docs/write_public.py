"""Writes docs/public.md: every public name of share_jax with the first sentence of its docstring.

The names are those of the stubs, `share_jax/__init__.pyi` and one in every room; nothing is imported to read them.

Run it after a public name or its docstring has changed: `python docs/write_public.py`.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "public.md"
INTRODUCTION = """\
# What is public

<!-- Written by docs/write_public.py from the stubs and docstrings. -->

The names on this page, the command `share-jax` with its flags, and the files that both write.

- **May be relied on:** every name below at the place where it is listed, its parameters by keyword, what it returns and
  what it raises. A change that breaks one of these is announced in CHANGELOG.md under the version that makes it. Files
  that one version wrote are read by the later ones.
- **May move in any version:** every other name, and every module inside a room. `share_jax.bank.TaskBank` is public,
  `share_jax.bank.bank` is where it is written today. Also free to change: the wording of error lines and of
  `print(...)`, the last bits of results on other versions of JAX or other machines, and speed.
- **No part of the package:** `experiments`, which runs from a checkout, and `tests`.

Each name is loaded when it is first used: `import share_jax` alone loads no JAX.
"""


def stub_names(folder: Path) -> list[tuple[str, Path]]:
    """The public names of one folder, each with the file that defines it."""
    found = []
    for node in ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            home = folder.joinpath(*node.module.split(".")).with_suffix(".py") if node.module else None
            found += [(alias.name, home or module_file(folder, alias.name)) for alias in node.names]
    return found


def module_file(folder: Path, name: str) -> Path:
    package = folder / name / "__init__.py"
    return package if package.exists() else folder / f"{name}.py"


def docstring(file: Path, name: str) -> str:
    """The docstring of a class, a function or a constant, or of the file itself; empty where there is none."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if name in (file.stem, file.parent.name) and not any(getattr(node, "name", "") == name for node in tree.body):
        return ast.get_docstring(tree) or ""
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            text = after.value if isinstance(after, ast.Expr) else None
            return str(text.value) if isinstance(text, ast.Constant) else ""
    raise LookupError(f"{name}: got no definition in {file}, expected one; correct the stub beside it")


def summary(text: str) -> str:
    """The first paragraph of a docstring, up to its first full stop, in one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<! al)\. (?=[A-Z`])", paragraph)[0].rstrip(".").replace("|", "\\|")


def about(room: Path) -> str:
    """What a room is for, by the first sentence of its docstring."""
    return summary(ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or "")


def table(folder: Path) -> str:
    rows = [f"| `{name}` | {summary(docstring(file, name))} |" for name, file in stub_names(folder)]
    return "\n".join(["| name | what it is |", "| :-- | :-- |", *rows]) + "\n"


def page() -> str:
    """The text of docs/public.md."""
    package = ROOT / "share_jax"
    parts = [INTRODUCTION, f"## share_jax\n\n{table(package)}"]
    for stub in sorted(package.glob("*/__init__.pyi")):
        room = stub.parent
        parts.append(f"## share_jax.{room.name}\n\n{about(room)}.\n\n{table(room)}")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
