"""What a stream of batches needs of a model, a kernel and a schedule."""

from dataclasses import replace

from numpyro.infer.mcmc import MCMCKernel

from numpyro_llc.kernels import StochasticKernel, name_of
from numpyro_llc.local import LocalizedModel
from numpyro_llc.models import (
    Loader,
    ModelReading,
    Stream,
    check_counted_once,
    check_no_stream,
    with_batches,
)
from numpyro_llc.sampling._schedule import Schedule


def on_stream(
    local: LocalizedModel, stream: Stream, kernel: MCMCKernel, schedule: Schedule
) -> tuple[LocalizedModel, StochasticKernel, Loader]:
    """The model that counts all the data, the kernel that takes the batches, and these."""
    if not isinstance(kernel, StochasticKernel):
        check_no_stream(stream, f"`kernel` {name_of(kernel)!r} takes")
        raise AssertionError  # it raised
    if schedule.chain_method != "vectorized":
        raise ValueError(
            f"`chain_method` {schedule.chain_method!r} is not for a stream of batches, each of "
            "which all chains share. Leave it out."
        )
    if kernel.in_axes is not None:
        raise ValueError(
            "`in_axes` is not for a stream of batches, whose rows lie along the first axis of each "
            "array. Leave it out, and pass arguments without rows in `model_kwargs`."
        )
    if kernel.sampler.control_variates:
        raise ValueError(
            "`control_variates` needs the gradient at the centre over all the data, which a stream "
            "of batches does not give. Leave it out."
        )
    loader = Loader(stream)
    size = kernel.sampler.batch_size
    if size not in (None, loader.batch_size):
        raise ValueError(
            f"`batch_size` is {size}, and the batches of the stream have {loader.batch_size} "
            "rows. Leave it out."
        )
    num_data = stream.num_data if local.num_data is None else local.num_data
    local = replace(local, model=stream.counting_all(local.model), num_data=num_data)
    return local, kernel.replace(batch_size=loader.batch_size, control_variates=False), loader


def streamed(reading: ModelReading, loader: Loader) -> ModelReading:
    """The reading with batches from a stream."""
    stream = loader.stream
    if reading.program.enumeration is not None:
        check_no_stream(stream, "A model with discrete latent sites takes")
    if reading.program.arguments.has_held:
        check_no_stream(stream, "A model that reads values of arrays takes")
    counted = stream.num_data / stream.num_rows
    check_counted_once(reading, stream.num_data, loader.batch_size, counted=counted)
    program = with_batches(reading, stream=stream)
    return replace(reading, program=program, stream=loader.sources())
