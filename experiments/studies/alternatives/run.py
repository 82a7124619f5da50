"""Other forms of what the library computes, each against the form that it has.

Parts, by the names that `--only` takes:

* `mixed batch`: one layer's update for a batch of different tasks: slots gathered, as the library does it, against a
  one-hot product over the stack and against `jax.lax.ragged_dot` on examples sorted by task;
* `folded update`: A B as a sum of outer products, as the library folds it into a kernel, against a product;
* `share core`: the coefficients of `share` as one (k, k) core, as the library has them, against two products;
* `query, key, value`: three adapters of one input by three products x @ A_i, against one with the A's side by side;
* `scanned layers`: the vision transformer's layers unrolled against `nn.scan`: compile time, and the step's;
* `donated buffers`: the state of a step donated, as the library does it, against kept;
* `compilation cache`: a step compiled without JAX's persistent cache, into an empty one, and out of a filled one;
* `length buckets`: steps on batches cut to 8, 12, 16 and 24 tokens, in CLINC150's shares of them, against 24 for all;
* `short texts`: a decoder's steps on texts of queries10's lengths, in length buckets, as the library has them, against
  all padded to the longest, and against all packed into few rows with document masks;
* `written tokens`: a decoder's greedy tokens in one compiled loop with a donated cache, as the library writes them,
  against a call per token, with the cache donated and kept;
* `few rows`: a decoder's kernels applied to the rows of one token's step, in one product, as the library does it,
  against a product for each row, and against kernels kept as int8 codes.

Alternatives are held to the library's own numbers before they are timed. What is compared on one layer is also put
against the whole forward pass or step that the layer is part of, by the number of such layers: what a form saves of
the layer it saves of that at most. There are no bars: a ratio above 1 says why the library has the form it has.
"""

from experiments.bench.peer import Peer
from experiments.bench.suite import Options, SuiteResult, merged_results
from experiments.studies.alternatives.decoder_forms import length_part, loop_part
from experiments.studies.alternatives.few_rows import rows_part
from experiments.studies.alternatives.layer_forms import mixed_part, projections_part
from experiments.studies.alternatives.merged_updates import fold_part
from experiments.studies.alternatives.models import bucket_part, cache_part, core_part, donation_part, scan_part

PARTS = {
    "mixed batch": mixed_part,
    "folded update": fold_part,
    "share core": core_part,
    "query, key, value": projections_part,
    "scanned layers": scan_part,
    "donated buffers": donation_part,
    "compilation cache": cache_part,
    "length buckets": bucket_part,
    "short texts": length_part,
    "written tokens": loop_part,
    "few rows": rows_part,
}


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The study; it needs no peer."""
    return merged_results([part(options) for name, part in PARTS.items() if options.takes(name)])
