"""Tasks of tokens on a tiny decoder: what is cached, learnt, asked plainly or with examples, and written at the end."""

from dataclasses import replace

import numpy as np
import pytest
from token_jobs import ANSWERS, token_job

from experiments.algorithms.job import run_method
from experiments.report.samples import plain_samples


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return token_job(tmp_path_factory.mktemp("tokens"))


def test_the_frozen_layers_output_stands_in_place_of_ids_and_answers_alike(job, tmp_path):
    raw = token_job(tmp_path, cached=False)
    model, variables = job.backbone.model, {"params": job.backbone.params}
    for cached, plain in zip(job.stream.tasks, raw.stream.tasks, strict=True):
        assert "hidden" in cached.test.inputs
        assert "input_ids" not in cached.test.inputs
        one, other = (model.apply(variables, **task.test.inputs) for task in (cached, plain))
        wanted = np.asarray(cached.test.labels) >= 0
        np.testing.assert_allclose(np.asarray(one.nats)[wanted], np.asarray(other.nats)[wanted], rtol=0, atol=1e-4)


def test_a_stream_is_learnt_without_forgetting_and_every_task_writes_its_sample(job):
    found = run_method(replace(job, folder=job.folder / "shared_a"))
    assert found.extra["tasks_with_changed_logits"] == 0
    assert np.isnan(found.untrained).all(), "asked before it is learnt"
    assert [each["task"] for each in found.extra["samples"]] == list(ANSWERS)[:2]
    assert [each["wanted"] for each in found.extra["samples"]] == list(ANSWERS.values())[:2]
    told = plain_samples({"methods": {"shared_a": {"runs": [{"extra": found.extra}]}}})
    assert "the cat sat sql" in told
    assert len(told.splitlines()) == 4


@pytest.mark.parametrize("name", ["frozen", "frozen_few_shot"])
def test_the_frozen_model_is_asked_plainly_and_with_examples(job, name):
    found = run_method(replace(job, name=name, folder=job.folder / name))
    assert found.accuracy.shape == (2, 2)
    assert found.accuracy[1, 1] == 0.0
