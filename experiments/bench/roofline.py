"""Suite `roofline`: each of our train steps against its floor, and the floor against the machine's own rates.

The floor is the frozen forward pass plus the backward pass to the activations (`experiments.bench.lower_bound`). The
machine's rates are measured in the same rounds: a float32 matrix product, and a pass over an array far beyond the
caches. The floor's operations, as XLA counts them, over the product's rate is the time that nothing here could beat.
With peers, the models' own products are timed on both sides (`experiments.bench.roofline_products`).
"""

from experiments.bench.lower_bound import floor_case, rate_cases
from experiments.bench.peer import Peer
from experiments.bench.roofline_products import products_part
from experiments.bench.steps import OURS, adapted_of, forms, forward_case, step_case
from experiments.bench.subjects import EVERY, QUERY_VALUE, minilm, vit
from experiments.bench.suite import Options, SuiteResult, merged_results, raced
from experiments.bench.timing import ratio


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite; a peer is needed for nothing but torch's side of the products."""
    subjects = [minilm(8, tiny=True)] if options.tiny else [vit(), minilm(32)]
    parts = []
    for subject in subjects:
        every = (EVERY,) if options.tiny else (EVERY, QUERY_VALUE)
        several = [name for name in every if options.takes(f"{subject.name}, {name}")]
        if not several:
            continue
        whole = f"{subject.name}, float32: "
        cases = [*(rate_cases(64, 1024) if options.tiny else rate_cases()), forward_case(subject, whole)]
        for targets in several:
            prefix = f"{subject.name}, {targets}, float32: "
            cases.append(floor_case(subject, adapted_of(subject, targets, forms()[2].method), prefix))
            cases += [step_case(subject, targets, form, prefix) for form in forms()]
        times, rows = raced(cases, options.rounds, options)
        found: dict[str, float] = {}
        for targets in several:
            prefix = f"{subject.name}, {targets}, float32: "
            floor = times[f"{prefix}floor", OURS]
            found |= {f"{prefix}{form.name} / floor": ratio(times[prefix + form.name, OURS], floor) for form in forms()}
            found[f"{prefix}floor / frozen forward"] = ratio(floor, times[f"{whole}frozen forward", OURS])
            facts = {case.key: case.facts for case in cases}
            share = facts[f"{prefix}floor", OURS]["operations"] / facts["matrix product", OURS]["operations"]
            product = times["matrix product", OURS]
            found[f"{prefix}floor / its operations at the product's rate"] = ratio(floor, product) / share
        parts.append(SuiteResult(_named(rows, subject.name), found, _rates(rows)))
    if options.takes("products"):
        parts.append(products_part(options, peer))
    return merged_results(parts)


def _rates(rows: list[dict]) -> dict[str, float]:
    found = {row["case"]: row for row in rows}
    product, whole = found["matrix product"], found["pass over memory"]
    return {
        "matmul_gflop_per_s": product["operations"] / product["median_s"] / 1e9,
        "memory_gb_per_s": whole["moved_bytes"] / whole["median_s"] / 1e9,
    }


def _named(rows: list[dict], name: str) -> list[dict]:
    """The rates' rows say beside which subject they were measured."""
    return [{**row, "case": row["case"] if ": " in row["case"] else f"{name}: {row['case']}"} for row in rows]
