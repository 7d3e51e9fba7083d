import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

# What the tests run is small: programs that XLA optimizes little compile in half the time, and run
# as fast. The second flag is one that later versions do not know. XLA_FLAGS= runs what users run.
FLAGS = "--xla_backend_optimization_level=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FLAGS)
# Compiled programs are kept between runs and shared by the workers; JAX reads this when imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# NumPyro orders the leaves of distributions by the hashes of their names, which are others in each
# process: its programs would not be found in the cache. The workers of pytest-xdist inherit this.
os.environ.setdefault("PYTHONHASHSEED", "0")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import regression  # noqa: E402

import numpyro_llc as nllc  # noqa: E402

pytest_plugins = ["compilations"]
# Tracing makes many small objects that stay: Python's default looks at all of them again and again,
# which took a tenth of the time of a run with a full cache.
gc.set_threshold(50_000, 20, 100)
gc.freeze()
# A shell makes what it runs in the background deaf to Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)
MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 45_000
"""Each compiled program maps memory, and Linux ends a process that has 65 530 mappings.

A module adds some thousands, and letting go of all takes seconds."""


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_is_let_go_before_there_is_too_much():
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def no_compiled_code():
    """For tests of one module that compile very much each: none of it is there at the start."""
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def fitted():
    """λ̂ of the noisy linear regression at its least-squares point, γ = 1, with all its sites."""
    return nllc.estimate_llc(
        jax.random.key(1),
        regression.model,
        (regression.X, regression.Y),
        center={"w": regression.OLS},
        num_warmup=500,
        progress_bar=False,
    )


@pytest.fixture
def llc_of():
    """λ̂ and its Monte Carlo error, as floats."""

    def read(idata):
        row = nllc.summary(idata).loc["llc"]
        assert np.isfinite(row).all()
        return row["mean"], row["mcse_mean"]

    return read
