"""The command `share-jax`: many LoRA adapters in one small shared set, and back.

Exit status: 0 done, 1 a check failed, 2 bad usage or input. Every error is one line on stderr. JAX is imported only
by the commands that compute.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from share_jax.cli.options import Parser
from share_jax.errors import ShareError
from share_jax.storage.cache_dir import keep_compiled

_SETS = ("compress", "add", "remove", "recompress")
_COMMANDS = (*_SETS, "info", "validate", "export", "diff", "similarity", "merge", "bench")


def parser() -> Parser:
    """The whole command line."""
    from share_jax import __version__

    out = Parser(prog="share-jax", description="Many LoRA adapters in one small shared set of bases, and back.")
    out.add_argument("--version", action="version", version=f"share-jax {__version__}")
    subparsers = out.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name in _COMMANDS:
        importlib.import_module(f"share_jax.cli.{name}").add_parser(subparsers)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    # JAX calls LAPACK from several threads of its own; with OpenBLAS's threads on top, batched QR and SVD can hang
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        args = parser().parse_args(argv)
        return args.run(args)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    except ShareError as e:
        return _fail(str(e))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _fail("stopped; nothing was changed")
        return 130
    except (OSError, MemoryError) as e:
        return _fail(f"{type(e).__name__}: {e}")
    except Exception as e:
        if os.environ.get("SHARE_JAX_DEBUG"):
            raise
        return _fail(f"internal error, {type(e).__name__}: {e}; set SHARE_JAX_DEBUG=1 to see where, and report it")


def command() -> int:
    """`main` as a process of its own, whose compiled programs are kept for the next one."""
    keep_compiled(os.environ)
    return main()


def _fail(message: str) -> int:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}share-jax: {' '.join(message.split())}", file=sys.stderr)
    return 2
