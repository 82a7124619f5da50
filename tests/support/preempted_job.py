"""One of two processes that step together until one of them is asked to stop: `preempted_job.py ADDRESS NUMBER`."""

import sys
import time

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from share_jax.runtime.preemption import Preempted, Preemption

address, number = sys.argv[1], int(sys.argv[2])
jax.distributed.initialize(address, 2, number)
step = 0
try:
    with Preemption(lambda what: print(f"told: {what}", flush=True)) as preemption:
        preemption.holding(lambda: f"saved at step {step}")
        multihost_utils.sync_global_devices("start")
        print("ready", flush=True)
        while step < 10_000:
            multihost_utils.process_allgather(jnp.int32(step))
            time.sleep(0.01 * (1 + number))
            step += 1
            preemption.point()
except Preempted:
    sys.exit(0)
sys.exit("was never stopped")
