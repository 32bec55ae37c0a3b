"""Studies on many machines: workers that share a store, trials as Ray tasks, Slurm arrays."""

from typing import TYPE_CHECKING

from leadline.errors import SpecError, unknown

if TYPE_CHECKING:
    from leadline.running.clusters.ray import RayTasks

EXECUTORS = ("local", "inprocess", "ray")


def on_ray(executor: str, address: str | None, cpus: float, gpus: float, workers: int | None) -> "RayTasks | None":
    """Return the Ray executor if it was requested, or None if this machine runs the trials.

    Raises:
        SpecError: the name is unknown, or options of one executor are given to another.
    """
    if executor not in EXECUTORS:
        raise SpecError(unknown("--executor", executor, EXECUTORS))
    if executor != "ray":
        for option, given in (("--address", address), ("--cpus-per-trial", cpus != 1), ("--gpus-per-trial", gpus)):
            if given:
                raise SpecError(
                    f"{option} needs --executor ray, but the executor is {executor}; remove this option or"
                    f" change the executor"
                )
        return None
    if workers is not None:
        raise SpecError(
            f"--workers {workers} --executor ray: Ray itself starts as many trials as fit; remove one of"
            f" the two options"
        )
    from leadline.running.clusters.ray import RayTasks

    return RayTasks(address, cpus, gpus)
