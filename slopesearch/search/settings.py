"""How a study is run, and on what: no part of what is asked, and not stored with it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from slopesearch.config import Precision, ResolvedSpec
from slopesearch.search.launchers import LAUNCHERS, Launcher
from slopesearch.training.devices import best_precision, default_pack, resolve_devices
from slopesearch.wording import RequestError, unknown


@dataclass(frozen=True)
class Settings:
    """Where the data are, what trains, and when to stop.

    `folder` is the data folder. `devices` is "auto", "cpu", "cuda" or a list like "cuda:0,cuda:2"; `workers`
    of them train, `pack` trials together on each, by default as many as suit the devices. No trial begins
    after `timeout` s; a worker without a message for `hang_timeout` s is ended (the default study reports
    every second, a day's run every three hours). `deterministic` gives the same trials on any number of
    workers, see `Loop`. The launcher "ray" has its workers on the cluster at `ray_address`, or on one of this
    machine alone; what asks for them then has to be in the block of `connected`.
    """

    folder: Path = Path("data")
    devices: str = "auto"
    workers: int | None = None
    pack: int | None = None
    launcher: str = "process"
    timeout: float | None = None
    hang_timeout: float = 1800.0
    deterministic: bool = False
    ray_address: str | None = None

    @property
    def on_ray(self) -> bool:
        """Whether the workers are on a Ray cluster."""
        return self.launcher == "ray"

    def connected(self) -> AbstractContextManager[None]:
        """A block with the cluster at hand, where the launcher needs one.

        Raises RequestError where the settings are wrong, or there is no such cluster.
        """
        found = [
            f"{name}: at least 1, given {given}"
            for name, given in (("workers", self.workers), ("pack", self.pack))
            if given is not None and given < 1
        ]
        if self.launcher not in (*LAUNCHERS, "ray"):
            found.append(unknown("launcher", self.launcher, [*LAUNCHERS, "ray"]))
        if self.ray_address is not None and not self.on_ray:
            found.append(f"--ray-address goes with --launcher ray alone, given --launcher {self.launcher}")
        if self.on_ray and find_spec("ray") is None:
            found.append("--launcher ray needs Ray, which is not installed: run `pip install ray`")
        if found:
            raise RequestError(*found)
        if not self.on_ray:
            return nullcontext()
        from slopesearch.search.launchers import ray_cluster

        return ray_cluster.connected(self.ray_address)

    def slots(self) -> list[str]:
        """The device of each worker. Raises RequestError where what is asked for cannot be had."""
        if not self.on_ray:
            return resolve_devices(self.devices, self.workers)
        from slopesearch.search.launchers import ray_cluster

        return ray_cluster.slots(self.devices, self.workers)

    def best_precision(self, asked: Precision | None) -> Precision:
        """What every worker multiplies fast. Raises RequestError where workers cannot be trusted to agree, or
        one on a cluster does not multiply what is asked for.
        """
        if not self.on_ray:
            return best_precision(self.slots())
        from slopesearch.search.launchers import ray_cluster

        return ray_cluster.best_precision(self.slots()[0], asked)

    def launch(
        self, devices: list[str], spec: ResolvedSpec, most: int, is_left: Callable[[], bool]
    ) -> Launcher:
        """The workers for a study, on these of the `slots`.

        At most so many are of use at a time, also where more join. `is_left` says whether the user has left
        while they are waited for. Raises RequestError where none can be had.
        """
        if not self.on_ray:
            return LAUNCHERS[self.launcher](devices, self.folder)
        from slopesearch.search.launchers.ray import RayLauncher

        return RayLauncher(
            devices[0],
            self.folder,
            dataset=spec.dataset,
            precision=spec.precision,
            pack=1 if self.deterministic else self.pack,
            workers=self.workers,
            most=most if self.workers is None else min(most, self.workers),
            is_left=is_left,
        )

    def pack_for(self, shares: Callable[[], list[int]], trials: int) -> int:
        """How many of so many trials train together on each worker; `shares`: see `Launcher`."""
        return self.pack or (1 if self.deterministic else default_pack(shares(), trials)[0])
