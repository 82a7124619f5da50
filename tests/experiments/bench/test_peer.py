"""The pipe to a peer, with a fake one; and the weights that a torch twin is given."""

import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.bench.machine import Watch
from experiments.bench.peer import Peer, PeerError, versions_of
from experiments.bench.subjects import TARGETS, minilm, torch_weights, vit
from experiments.bench.timing import race

FAKE = (str(Path(__file__).parents[2] / "support" / "bench_fake_peer.py"),)


@pytest.fixture(scope="module")
def peer():
    with Peer(Path(sys.executable), 2, FAKE) as started:
        yield started


def test_a_peer_says_what_it_is_and_takes_the_threads(peer):
    assert peer.versions["numpy"] == np.__version__
    assert peer.versions["peft"] is None
    assert versions_of(None) == {}
    assert peer.make("threads", "threads") == {"start": 2}
    assert peer.environment["OMP_NUM_THREADS"] == "2"


def test_its_runs_take_part_in_a_race(peer):
    case = peer.case("count", "theirs", "counter", start=10)
    assert case.facts == {"start": 10}
    assert race([case], 2, pause=0)[case.key] == {0: 12.0, 1: 13.0}
    assert peer.runner("count theirs", step=5)() == 18.0
    peer.drop(["count theirs"])
    with pytest.raises(PeerError, match="asked to run: got KeyError"):
        case.run()


def test_an_error_comes_back_as_one_line_and_the_peer_lives_on(peer):
    with pytest.raises(PeerError, match="KeyError: 'absent'") as error:
        peer.make("x", "absent")
    assert "\n" not in str(error.value)
    with pytest.raises(PeerError, match="nothing is called 'dance'"):
        peer.ask("dance")
    assert peer.make("y", "counter") == {"start": 0}


def test_a_peer_that_ends_is_told_of():
    with Peer(Path(sys.executable), 1, FAKE) as peer:
        peer.make("x", "ends")
        with pytest.raises(PeerError, match=r"status 3|silence"):
            peer.ask("run", key="x")


def test_an_interpreter_that_is_none_is_refused(tmp_path):
    with pytest.raises(PeerError, match="--peers"):
        Peer(tmp_path / "python", 1)


def test_the_time_that_others_take_leaves_out_our_own():
    watch = Watch()
    total = sum(i * i for i in range(400_000))
    found = watch.found([os.getpid()])
    assert total > 0
    assert found["processors_busy_with_others"] is None or found["processors_busy_with_others"] >= 0


@pytest.mark.parametrize("subject", [vit(tiny=True), minilm(8, tiny=True)], ids=["vit", "bert"])
def test_a_twin_gets_every_parameter_in_torchs_layout(subject):
    """As many numbers as the model has, kernels (out, in), under the names of transformers' modules."""
    weights = torch_weights(subject.params, subject.twin)
    assert sum(x.size for x in weights.values()) == sum(x.size for x in jax.tree.leaves(subject.params))
    layer = subject.params["encoder"]["layer_1"]
    names = {"vit": ("layers.1.attention.o_proj", "layers.1.mlp.fc1"), "bert": ("encoder.layer.1.attention.output.dense", "encoder.layer.1.intermediate.dense")}  # fmt: skip  # noqa: E501
    out, up = (weights[f"body.{name}.weight"] for name in names[subject.twin["model"]])
    np.testing.assert_array_equal(out, np.asarray(layer["attention"]["out"]["kernel"]).reshape(8, 8).T)
    np.testing.assert_array_equal(up, np.asarray(layer["ffn_up"]["kernel"]).T)


def test_a_patch_kernel_is_the_convolution_that_does_the_same():
    """A tile of rows, columns and channels against torch's (d, channels, rows, columns)."""
    subject = vit(tiny=True)
    weights = torch_weights(subject.params, subject.twin)
    kernel = np.asarray(subject.params["encoder"]["patch"]["kernel"])
    tile = np.random.default_rng(0).normal(size=(4, 4, 3))
    convolved = np.einsum("rcx,dxrc->d", tile, weights["body.embeddings.patch_embeddings.projection.weight"])
    np.testing.assert_allclose(convolved, tile.reshape(-1) @ kernel, rtol=1e-5)


def test_the_named_targets_are_those_that_the_names_say():
    counts = {"all kernels": 6, "query and value": 2, "FFN-down": 1}
    from experiments.bench.steps import adapted_of, forms

    for name in TARGETS:
        adapted = adapted_of(vit(tiny=True), name, forms()[0].method)
        assert len(adapted.targets) == 2 * counts[name]
