"""λ̂ from minibatches with nothing given but `batch_size`, over many keys, against exact values.

    python tests/benchmarks/minibatch.py --keys 40 --cases linear-5 --kernels sgld psgld sgnht

prints for each case and kernel the mean deviation from the exact value, the largest, the share of
90 % intervals that hold the exact value, the largest R-hat, gradients of a chain, and seconds. The
"exact" value of a linear network is that of NUTS, which is printed with its error.
"""

import argparse
import functools
import time

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_llc as nllc


def linear(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 10.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def network(x, y):
    """A linear network of three layers."""
    outputs = x
    for k in (1, 2, 3):
        shape = (x.shape[1], x.shape[1])
        layer = numpyro.sample(f"layer_{k}", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
        outputs = outputs @ layer.T
    with numpyro.plate("N", x.shape[0]):
        numpyro.sample("y", dist.Normal(outputs, 1.0).to_event(1), obs=y)


def network_case(n, width, rank):
    """Data whose second moment is the identity, an aligned true point, and λ̂ by NUTS.

    NUTS has the same loss from as many rows as there are inputs, so that it is quick.
    """
    problem = nllc.zoo.deep_linear_network((width,) * 4, rank, num_data=n)
    x = np.sqrt(n) * np.linalg.qr(np.random.default_rng(0).normal(size=(n, width)))[0]
    layers = [np.asarray(problem.center[f"layer_{k}"]) for k in (1, 2, 3)]
    idata = nllc.estimate_llc(
        jax.random.key(0),
        problem.model,
        problem.model_args,
        center=problem.center,
        num_data=n,
        num_samples=1500,
        progress_bar=False,
    )
    reference = nllc.summary(idata).loc["llc"]
    print(f"NUTS: {reference['mean']:.2f} ± {reference['mcse_mean']:.2f}", flush=True)
    y = x @ np.linalg.multi_dot(layers[::-1]).T
    return network, (x, y), problem.center, reference["mean"]


def linear_case(n, scales):
    """Data, the least-squares point, and ½ Σ βh / (βh + 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, len(scales))) * scales
    y = x @ np.ones(len(scales)) + rng.normal(size=n)
    tempered = np.linalg.eigvalsh(x.T @ x) / np.log(n)
    center = np.linalg.lstsq(x, y, rcond=None)[0]
    return linear, (x, y), {"w": center}, 0.5 * np.sum(tempered / (tempered + 1))


def logistic_case(n, dimension):
    """Data, the maximum of the likelihood, and λ̂ by importance sampling from its Laplace fit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, dimension))
    truth = 0.7 * rng.normal(size=dimension)
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-x @ truth))).astype(float)
    w = np.zeros(dimension)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (p * (1 - p))[:, None]).T @ x
        w = w + np.linalg.solve(hessian, x.T @ (y - p))
    root = np.linalg.cholesky(np.linalg.inv(hessian / np.log(n) + np.eye(dimension)))
    llc, log_weight = [], []
    for _ in range(100):
        z = rng.normal(size=(500, dimension))
        shift = z @ root.T
        logits = x @ (w + shift).T
        loss = np.sum(np.logaddexp(0, logits) - y[:, None] * logits, axis=0)
        llc.append((loss - np.sum(np.logaddexp(0, x @ w) - y * (x @ w))) / np.log(n))
        log_weight.append(0.5 * np.sum(z**2 - shift**2, axis=1) - llc[-1])
    weight = np.exp(np.concatenate(log_weight) - np.max(log_weight))
    return logistic, (x, y), {"w": w}, float(np.concatenate(llc) @ weight / weight.sum())


CASES = {
    "linear-5": (lambda: linear_case(10_000, np.ones(5)), 64),
    "linear-5-large-batch": (lambda: linear_case(10_000, np.ones(5)), 1024),
    "linear-20": (lambda: linear_case(100_000, np.geomspace(3, 0.03, 20)), 256),
    "logistic-10": (lambda: logistic_case(20_000, 10), 128),
    "network-10": (lambda: network_case(20_000, 10, 5), 500),
    "network-30": (lambda: network_case(100_000, 30, 10), 500),
}


@functools.cache
def made(name):
    make, batch_size = CASES[name]
    return *make(), batch_size


def run(name, kernel, num_keys):
    model, data, center, exact, batch_size = made(name)
    rows, began, gradients = [], time.perf_counter(), []
    for key in range(num_keys):
        idata = nllc.estimate_llc(
            jax.random.key(key),
            model,
            data,
            center=center,
            kernel=kernel,
            batch_size=batch_size,
            progress_bar=False,
        )
        rows.append(nllc.summary(idata).loc["llc"])
        gradients.append(idata.attrs["gradient_evaluations"])
    mean, error = (np.array([row[column] for row in rows]) for column in ("mean", "mcse_mean"))
    print(
        f"{name:21s} {kernel:6s} {exact:8.4f} {100 * (mean.mean() / exact - 1):+6.2f} "
        f"{100 * np.max(abs(mean / exact - 1)):6.2f} {100 * np.mean(error / exact):6.2f} "
        f"{np.mean(abs(mean - exact) < 1.645 * error):6.2f} "
        f"{max(row['r_hat'] for row in rows):7.4f} {np.mean(gradients):10.0f} "
        f"{(time.perf_counter() - began) / num_keys:6.1f}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=3)
    regressions = [name for name in CASES if not name.startswith("network")]
    parser.add_argument("--cases", nargs="+", default=regressions, choices=CASES)
    parser.add_argument("--kernels", nargs="+", default=["sgld", "psgld", "sgnht"])
    arguments = parser.parse_args()
    columns = "kernel    exact  bias% worst% error%  cover   R-hat  gradients  s/run"
    print(f"{'case':21s} {columns}")
    for case in arguments.cases:
        for kernel in arguments.kernels:
            run(case, kernel, arguments.keys)


if __name__ == "__main__":
    main()
