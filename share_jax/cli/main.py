"""The command `share-jax`: LoRA adapters into one shared set and back; language models that learn task after task.

Exit status: 0 done, or told to stop by SIGTERM; 1 a check failed, 2 bad usage or input, 130 interrupted. Every error
is one line on stderr. Only the command that is asked for is imported, so that `--help` waits for no library. JAX is
loaded by what needs a model or a bank alone.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from share_jax import __version__
from share_jax.cli.options import Parser, complete
from share_jax.errors import ShareError
from share_jax.runtime.closed_output import drop_output
from share_jax.runtime.preemption import Preempted

COMMANDS = {
    "plan": "Show what compressing LoRA adapters would cost and lose, before anything is written.",
    "compress": "Compress LoRA adapters into one shared set.",
    "add": "Add LoRA adapters to a set; the old ones are not needed.",
    "remove": "Remove tasks from a set; the others do not change.",
    "recompress": "Choose the bases of a set anew: after tasks were removed, or to make it smaller.",
    "info": "Show a set's tasks, sizes, errors and proven bounds.",
    "validate": "Check a set's files, tensors and bounds (exit status 1 if one fails).",
    "export": "Write a task as a PEFT folder, which PEFT and vLLM load.",
    "convert": "Write an adapter in another tool's format, with an account of every tensor.",
    "diff": "Compare two tasks of a set, layer by layer.",
    "similarity": "Show which adapters, or which tasks of a set, are alike.",
    "merge": "Write the merge of several tasks as a PEFT folder.",
    "bench": "Measure loading, reconstructing and exporting a set's tasks.",
    "learn": "Teach a language model one more task; its older tasks keep their bits.",
    "generate": "Complete prompts with the tasks of a language model, several tasks in one batch.",
    "evaluate": "Score the tasks of a language model on examples.",
    "tasks": "Show the tasks of a language model's bank.",
    "import": "Make PEFT adapters tasks of a language model's bank.",
}
"""Each is a file of this folder, but for the names in `FILES`."""

FILES = {"import": "import_adapters"}


def parser(argv: Sequence[str]) -> Parser:
    """The whole command line, with the arguments of the command that `argv` names."""
    out = Parser(
        prog="share-jax",
        description="Compress LoRA adapters into one shared set and back; teach language models task after task.",
    )
    out.add_argument("--version", action="version", version=f"share-jax {__version__}")
    subparsers = out.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    chosen = next((word for word in argv if word in COMMANDS), None)  # no option before the command takes a value
    for name, summary in COMMANDS.items():
        own = subparsers.add_parser(name, help=summary, description=summary)
        if name == chosen:
            complete(own, importlib.import_module(f"share_jax.cli.{FILES.get(name, name)}"))
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8"):  # as under LC_ALL=C of some systems
        sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        args = parser(words).parse_args(words)
        return args.run(args)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    except ShareError as e:
        return _fail(str(e))
    except BrokenPipeError:
        drop_output()
        return 0
    except Preempted:  # SIGTERM: what was saved has been told
        return 0
    except KeyboardInterrupt:
        _fail("stopped")
        return 130
    except (OSError, MemoryError) as e:
        return _fail(f"{type(e).__name__}: {e}")
    except Exception as e:
        if os.environ.get("SHARE_JAX_DEBUG"):
            raise
        return _fail(f"internal error, {type(e).__name__}: {e}; set SHARE_JAX_DEBUG=1 to see where, and report it")


def _fail(message: str) -> int:
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}share-jax: {' '.join(message.split())}", file=sys.stderr)
    return 2
