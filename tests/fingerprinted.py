"""A model whose parts have fingerprints of many kinds, as code that two processes run."""

MODEL = """
import functools, jax, numpy as np, numpyro.distributions as dist
def make(power, scale, half=0.5):
    def model(x, *, y=half):
        return jax.nn.relu(x) ** power, dist.Normal(x, scale), [k for k in "ab"], {"c", "d"}
    return functools.partial(model, y=np.ones(2))
"""


def model():
    space: dict = {}
    exec(MODEL, space)
    return space["make"](2, 3.0)
