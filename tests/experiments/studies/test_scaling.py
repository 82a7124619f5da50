"""What an adapter sends: next to nothing beside a full fine-tune, and nothing more for a thousand tasks."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments.studies.scaling.hlo import array_bytes, group_size, traffic
from experiments.studies.scaling.model import FORMS, FULL, SIZES, account
from experiments.studies.scaling.page import sent
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape

OPTIONS = {"examples": 8, "tokens": 32}
DATA = MeshShape(data=8)


def test_the_collectives_of_a_known_program_are_counted_with_those_in_loops():
    """An all-reduce of 4 KB in a loop of five rounds, and an all-gather of 2 KB after it."""
    mesh = make_mesh(DATA)
    split, whole = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), ()))

    def program(x, y):
        def body(total, _):
            sums = jax.lax.with_sharding_constraint((x * (1 + total[0])).sum(axis=0), whole)
            return total + sums, None

        total, _ = jax.lax.scan(body, jnp.zeros(1024), None, length=5)
        return total, jax.lax.with_sharding_constraint(y, whole)

    x = jax.ShapeDtypeStruct((8, 1024), jnp.float32, sharding=split)
    y = jax.ShapeDtypeStruct((512,), jnp.float32, sharding=split)
    found = traffic(jax.jit(program).lower(x, y).compile().as_text(), 8)
    assert found == {"all-reduce": 5 * 2 * 7 / 8 * 4096, "all-gather": 7 / 8 * 2048}


def test_shapes_and_groups_are_read():
    assert array_bytes("(f32[2,3]{1,0}, pred[5]{0}, token[])") == 29
    assert group_size("replica_groups=[4,2]<=[2,4]T(1,0), x", 8) == 2
    assert group_size("channel_id=1", 8) == 8


@pytest.mark.slow
def test_an_adapter_sends_less_than_one_percent_of_a_full_fine_tune():
    """With the weights on each device all that is sent is gradients: of the adapter, or of everything."""
    full = sent(account(SIZES["tiny"], FULL, DATA, rank=4, **OPTIONS))
    weights = 4 * 6_293_000
    assert full == pytest.approx(2 * 7 / 8 * weights, rel=0.01)
    for form in (FORMS[0], FORMS[2]):
        assert 0 < sent(account(SIZES["tiny"], form, DATA, rank=4, **OPTIONS)) < 0.01 * full


@pytest.mark.slow
def test_what_is_sent_does_not_grow_with_the_number_of_tasks():
    few, many = (account(SIZES["tiny"], FORMS[1], DATA, rank=4, slots=slots, **OPTIONS) for slots in (2, 1000))
    assert sent(few) == sent(many) > 0
    slot = 4 * (2 * 2 * 4 * 512)
    assert many["arguments"] - few["arguments"] == 998 * slot
