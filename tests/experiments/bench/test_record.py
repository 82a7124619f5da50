"""What a suite's document holds: its shape, its bars as a function of its ratios, its page and its picture."""

import copy
import json

import pytest

from experiments.bench.page import page
from experiments.bench.plot import plot
from experiments.bench.record import BARS, SUITES, bars, check, document, not_measured, read, write
from experiments.bench.timing import Case, fastest, race, ratio, summary, total
from share_jax.errors import FormatError

ROW = {"case": "vit, float32: step", "system": "share_jax", "median_s": 0.5, "iqr_s": 0.1, "repetitions": 3}
RATIOS = {
    "vit, all kernels, float32: shared_a later task / PEFT LoRA": 0.7,
    "vit, all kernels, float32: shared_a later task / separate LoRA": 0.951,
    "vit, all kernels, bfloat16: shared_a later task / PEFT LoRA": 9.0,
}


def made(suite="train", ratios=RATIOS):
    machine = {"processor": "a processor", "threads": 2, "seconds": 60.0, "processors_busy_with_others": 0.1}
    return document(suite, [ROW], ratios, {"jax": "1.0"}, machine=machine, rounds=3)


def test_bars_are_read_off_the_ratios():
    found = {bar["name"]: (bar["limit"], bar["met"]) for bar in bars("train", RATIOS)}
    assert found == {
        "vit, all kernels, float32: shared_a later task / PEFT LoRA": (0.70, True),
        "vit, all kernels, float32: shared_a later task / separate LoRA": (0.95, False),
    }
    kept = {"prefix cache, FFN-down, 20 passes: with / without, whole task": 0.4, "prefix cache: steps": 0.3}
    assert [(bar["limit"], bar["met"]) for bar in bars("prefix", kept)] == [(0.50, True)]
    assert len(not_measured("train", RATIOS)) == 1  # the floor
    assert not_measured("train", {}) == [bar.pattern for bar in BARS["train"]]


def test_the_page_says_what_is_left_to_gain_where_a_bar_is_not_met():
    train = made(
        ratios={
            "vit, all kernels, float32: shared_a later task / PEFT LoRA": 0.78,
            "vit, all kernels, float32: floor / PEFT LoRA": 0.75,
            "minilm, float32: shared_a later task / PEFT LoRA": 0.9,
            "minilm, float32: shared_a later task / separate LoRA": 0.96,
            "minilm, float32: shared_a later task / floor": 1.2,
        }
    )
    roofline = made(
        "roofline",
        {
            "vit, all kernels, float32: floor / its operations at the product's rate": 1.25,
            "products, vit: 8 x 4 x 4, ours / torch": 1.1,
            "products, vit: 3 of 8 x 4 x 4, ours / torch": 2.5,
            "products, vit: 3 of 8 x 8 x 4, ours / torch": 2.25,
            "products, vitamin: 8 x 8 x 4, ours / torch": 7.0,
        },
    )
    serve = made("serve", {"vit: 16 tasks mixed, ours / PEFT": 0.4, "vit: 16 tasks mixed, frozen forward / PEFT": 0.36})
    lines = [line for line in page([train, roofline, serve]).splitlines() if line.startswith("- ")]
    assert len(lines) == 4
    assert "0.780, limit 0.7." in lines[0]
    assert "alone take 0.75" in lines[0]
    assert "take 0.60 of PEFT's whole step" in lines[0]  # 0.75 / 1.25
    assert lines[0].endswith("takes 1.10 for the largest product and 2.25 and 2.50 for attention's.")
    assert lines[1].endswith("0.900, limit 0.7.")
    assert "the floor takes 0.80, what both methods add to it 0.16, the gradient of A" in lines[2]
    assert lines[2].endswith("does without, 0.04.")
    assert lines[3].endswith("alone takes 0.36.")


def test_the_page_says_what_a_whole_task_cannot_go_below():
    start = "task, 8 x 128, last ten layers, float32"
    lm = made("lm", {f"{start}: 20 passes, whole task / PEFT": 0.66})
    seconds = {"step with the cache": 3.0, "LoRA": 5.0, "filling the cache": 1.0}
    lm["results"] = [lm["results"][0] | {"case": f"{start}: {what}", "median_s": s} for what, s in seconds.items()]
    (line,) = (line for line in page([lm]).splitlines() if line.startswith("- "))
    assert line.endswith("The step with the cache takes 0.60 by itself, and no number of passes goes below that.")


def test_the_page_says_what_figures_in_bfloat16_are_worth_on_a_processor():
    lm = made("lm", {})
    assert "no products in bfloat16" not in page([lm])
    lm["results"] = [ROW | {"case": "step, 8 x 128, all layers, bfloat16: LoRA"}]
    assert page([lm]).count("no products in bfloat16") == 1


def test_every_suite_has_bars():
    assert set(BARS) == set(SUITES)
    assert all(bar.limit >= 0 for several in BARS.values() for bar in several)


def test_a_document_survives_a_file(tmp_path):
    write(tmp_path / "deep" / "train.json", made())
    assert read(tmp_path / "deep" / "train.json") == made()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda found: found.pop("versions"), "versions"),
        (lambda found: found.update(suite="tram"), "suite"),
        (lambda found: found["results"][0].pop("iqr_s"), "result 0: iqr_s"),
        (lambda found: found["results"][0].update(repetitions=True), "result 0: repetitions"),
        (lambda found: found["ratios"].update(x="1"), "ratio 'x'"),
        (lambda found: found["bars"][1].update(met=True), "bar 'vit"),
        (lambda found: found["bars"][0].update(met=1), "bar 0: met"),
    ],
)
def test_a_document_that_is_none_is_refused(change, named):
    found = copy.deepcopy(made())
    change(found)
    with pytest.raises(FormatError, match=named):
        check(found, "train.json")


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(FormatError, match="JSON"):
        read(tmp_path / "train.json")


def test_the_page_shows_bars_results_and_what_was_not_measured():
    text = page([made("tasks", {"step with 1,000 slots / 10 slots": 1.2}), made()])
    assert text.index("## `train`") < text.index("## `tasks`")
    assert "| tasks | step with 1,000 slots / 10 slots | 1.200 | 1.05 | **not met** |" in text
    assert "| step | share_jax | 500.0 ms | 100.0 ms | 3 |" in text
    assert "not measured" in text
    assert "kept 0.10 processors busy" in text


def test_the_page_names_every_machine():
    """One machine stands once at the top; where suites come from several, each says which."""
    alone = page([made(), made("tasks", {})])
    assert "\na processor, 2 threads.\n" in alone
    other = made("tasks", {})
    other["machine"]["processor"] = "another"
    text = page([made(), other])
    assert "\na processor, 2 threads; another, 2 threads. Not all suites are of the same machine" in text
    assert "3 rounds, 1.0 minutes, another, 2 threads." in text.partition("## `tasks`")[2]


def test_the_plot_is_a_picture(tmp_path):
    plot(made(), tmp_path / "train.png")
    assert (tmp_path / "train.png").read_bytes()[:4] == b"\x89PNG"


def test_a_race_runs_every_case_once_a_round_in_changing_orders():
    """Eight rounds of three cases: each is warmed up, one takes part in every fourth round, and orders differ."""
    runs = []

    def case(name, seconds, **options):
        return Case(name, "ours", lambda: runs.append(name) or seconds, **options)

    cases = [case("a", 1.0), case("b", 2.0), case("slow", 3.0, every=4, warm=False)]
    times = race(cases, 8, pause=0)
    assert {key[0]: len(rounds) for key, rounds in times.items()} == {"a": 8, "b": 8, "slow": 2}
    assert runs.count("a") == 9
    assert runs.count("slow") == 2
    assert "slow" not in runs[:2]
    pairs = [tuple(name for name in runs if name != "slow")[2 * i : 2 * i + 2] for i in range(9)]
    assert set(pairs) == {("a", "b"), ("b", "a")}
    with pytest.raises(ValueError, match="one name"):
        race([cases[0], cases[0]], 1)


def test_ratios_pair_what_was_measured_in_the_same_round():
    """A machine ten times slower in round 1 changes no ratio; a case that sat out a round is compared without it."""
    ours, theirs, rare = {0: 1.0, 1: 10.0, 2: 1.2}, {0: 2.0, 1: 20.0, 2: 2.4}, {0: 4.0}
    assert ratio(ours, theirs) == 0.5
    assert ratio(rare, ours) == 4.0
    assert ratio(total((2, ours), (1, rare)), rare) == 1.5
    assert fastest([theirs, rare]) == {0: 2.0}
    assert json.loads(json.dumps(summary(Case("c", "s", lambda: 0.0, {"bytes": 3}), ours))) == {
        "case": "c", "system": "s", "median_s": 1.2, "iqr_s": pytest.approx(4.5), "repetitions": 3, "bytes": 3,
    }  # fmt: skip
