"""The page that `experiments.studies.scaling` writes, from its rows."""

from collections.abc import Sequence
from typing import Any

from experiments.report.blocks import table
from experiments.studies.scaling.model import FULL, SIZES, parameters

CHIP = {"name": "TPU v5e", "flops": 197e12, "memory": 16e9, "link": 200e9}
"""Published peaks: bfloat16 operations a second, bytes of memory, bytes a second between chips (1,600 Gbit/s)."""

COMMAND = (
    "python -m experiments.studies.scaling --json runs/scaling.json --markdown experiments/studies/scaling/SCALING.md"
)

COLUMNS = (
    "model",
    "devices",
    "weights",
    "form",
    "sent, MB",
    "by the adapter, MB",
    "of full, %",
    "arguments, MB",
    "at work, MB",
    "bound, ms",
)

Row = dict[str, Any]


def sent(row: Row) -> float:
    """Bytes that a device sends in one step."""
    return sum(row["sent"].values())


def find(rows: Sequence[Row], **wanted: Any) -> Row | None:
    """The one row with these values; None if it was not compiled."""
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def adapter_bytes(rows: Sequence[Row], row: Row) -> float | None:
    """What the adapter alone sends: all, with the weights on each device; else bytes at twice the rank less at it."""
    if row["axis"] == "data":
        return sent(row)
    same = {name: row[name] for name in ("size", "form", "axis", "devices", "slots")}
    twice = find(rows, **same, rank=2 * row["rank"])
    return None if twice is None else sent(twice) - sent(row)


def bound(row: Row, tokens: int) -> float:
    """Seconds that a step takes at least on the chip: the longer of computing and sending, neither ever waiting.

    Two operations per weight and token forward, as many again for the activations' gradient, as many for the weights'
    gradient in a full fine-tune, and the forward pass once more by rematerialisation.
    """
    passes = 4 if row["form"] == FULL else 3
    flops = 2 * passes * parameters(SIZES[row["size"]]) * tokens / row["devices"]
    return max(flops / CHIP["flops"], sent(row) / CHIP["link"])


def _mega(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.3g}" if size < 1e9 else f"{size / 1e6:,.0f}"


def _table(rows: Sequence[Row], chosen: Sequence[Row], tokens: int) -> str:
    found = []
    for row in chosen:
        full = find(rows, form=FULL, **{name: row[name] for name in ("size", "axis", "devices", "slots")})
        own = None if row["form"] == FULL else adapter_bytes(rows, row)
        share = "-" if own is None or full is None else f"{100 * own / sent(full):.3f}"
        held = "split" if row["axis"] == "fsdp" else "on each"
        megas = [_mega(value) for value in (sent(row), own)]
        memory = [_mega(row[name]) for name in ("arguments", "temporaries")]
        cells = (row["size"], row["devices"], held, row["form"], *megas, share, *memory)
        found.append((*cells, f"{1000 * bound(row, tokens):,.3g}"))
    return table(COLUMNS, found, left=(0, 2, 3))


def page(rows: Sequence[Row], *, rank: int, examples: int, tokens: int) -> str:
    """Markdown, with what the tables say in words."""
    plain = [row for row in rows if not row["slots"] and row["rank"] == rank]
    shares = []
    for row in plain:
        full = find(rows, form=FULL, **{name: row[name] for name in ("size", "axis", "devices", "slots")})
        own = adapter_bytes(rows, row)
        if row["form"] != FULL and own is not None and full is not None:
            shares.append(own / sent(full))
    by_tasks = [row for row in rows if row["slots"]]
    top = max(row["devices"] for row in plain)
    by_devices = [row for row in plain if row["size"] == "110M"]
    by_size = [row for row in plain if row["axis"] == "fsdp" and row["devices"] == top]
    lines = [
        "# Scaling, on paper",
        "",
        f"Written by `{COMMAND}`.",
        "",
        "**Nothing here was run on an accelerator**: train steps were compiled for virtual CPU devices, and bytes were",
        "read off the compiled programs. float32 throughout; bfloat16 weights halve what they send and hold. Global",
        f"batch {examples} x {tokens} tokens; rank {rank} on query and value of every layer; `share` with {rank}",
        f"temporary directions, or {4 * rank} basis columns; blocks are computed again in the backward pass.",
        "",
        "- *sent*: what each device sends in one step, as a ring sends it. On the CPU XLA writes an all-reduce where a",
        "  TPU has a reduce-scatter, so a full fine-tune with split weights is counted with up to a third too much.",
        "- *by the adapter*: all of it, with the weights on each device. With split weights the frozen base model is",
        "  gathered for the forward and the backward pass whatever is trained: there it is what depends on the rank,",
        "  the bytes at twice the rank less those at the rank.",
        "- *arguments*, *at work*: bytes on each device, of weights, state and batch, and beside them while it runs.",
        f"- *bound*: at {CHIP['name']}'s published peaks ({CHIP['flops'] / 1e12:.0f} TFLOP/s in bfloat16,",
        f"  {CHIP['link'] / 1e9:.0f} GB/s between chips), the longer of computing and sending. No step is faster; how",
        "  much slower it is can be known only where it runs.",
        "",
        "Over all cases below, an adapter sends",
        f"{100 * min(shares):.4f} % to {100 * max(shares):.2f} % of what a full fine-tune of the same model sends.",
        "",
        "## Against the number of devices",
        "",
        _table(rows, by_devices, examples * tokens),
        "",
        "## Against the size of the model",
        "",
        _table(rows, by_size, examples * tokens),
        "",
        "## Against the number of tasks",
        "",
        "The step takes the stack of T slots, lifts one out, trains it and puts it back. What is sent does not",
        "depend on T; what is held grows by the slots themselves.",
        "",
        table(
            ("form", "T", "sent, MB", "arguments, MB", "at work, MB"),
            [
                (row["form"], f"{row['slots']:,}", *map(_mega, (sent(row), row["arguments"], row["temporaries"])))
                for row in by_tasks
            ],
        ),
    ]
    lines += ["", f"The model is `tiny` ({parameters(SIZES['tiny']) / 1e6:.1f}M weights), on 8 devices.", ""]
    return "\n".join(lines)
