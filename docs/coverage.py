"""Lists the public functions and classes whose docstring lacks an example: `python docs/coverage.py`.

An example is a doctest (`>>>`), which the test suite runs. A class may show it in the docstring of one of its public
methods. Exit status 1 if one lacks it.
"""

import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from write_public import ROOT, stub_names


def lacking(package: Path) -> list[str]:
    """The public functions and classes of a package and its rooms without an example, as `room.name`."""
    found = []
    for stub in sorted(package.glob("**/__init__.pyi")):
        for name, file in stub_names(stub.parent):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            node = next((node for node in tree.body if getattr(node, "name", "") == name), None)
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not _shown(node):
                found.append(f"{stub.parent.name}.{name}")
    return found


def _shown(node: ast.FunctionDef | ast.ClassDef) -> bool:
    texts = [ast.get_docstring(node)]
    if isinstance(node, ast.ClassDef):
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"]
        texts += [ast.get_docstring(each) for each in methods]
    return any(">>> " in (text or "") for text in texts)


if __name__ == "__main__":
    names = lacking(ROOT / "share_jax")
    print("\n".join(names))
    print(f"{len(names)} public functions and classes lack an example", file=sys.stderr)
    sys.exit(bool(names))
