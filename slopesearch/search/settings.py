"""How a study is run, and on what: no part of what is asked, and not stored with it."""

from dataclasses import dataclass
from pathlib import Path

from slopesearch.search.launchers import LAUNCHERS
from slopesearch.training.devices import default_pack, resolve_devices
from slopesearch.wording import RequestError, unknown


@dataclass(frozen=True)
class Settings:
    """Where the data are, what trains, and when to stop.

    `folder` is the data folder. `devices` is "auto", "cpu", "cuda" or a list like "cuda:0,cuda:2"; `workers`
    of them train, `pack` trials together on each, by default as many as suit the devices. No trial begins
    after `timeout` s; a worker without a message for `hang_timeout` s is ended (the default study reports
    every second, a day's run every three hours). `deterministic` gives the same trials on any number of
    workers, see `Loop`.
    """

    folder: Path = Path("data")
    devices: str = "auto"
    workers: int | None = None
    pack: int | None = None
    launcher: str = "process"
    timeout: float | None = None
    hang_timeout: float = 1800.0
    deterministic: bool = False

    def slots(self) -> list[str]:
        """The device of each worker. Raises RequestError where what is asked for cannot be had."""
        found = [
            f"{name}: at least 1, given {given}"
            for name, given in (("workers", self.workers), ("pack", self.pack))
            if given is not None and given < 1
        ]
        if self.launcher not in LAUNCHERS:
            found.append(unknown("launcher", self.launcher, list(LAUNCHERS)))
        if found:
            raise RequestError(*found)
        return resolve_devices(self.devices, self.workers)

    def pack_for(self, devices: list[str], trials: int) -> int:
        """How many of so many trials train together on each device."""
        return self.pack or (1 if self.deterministic else default_pack(devices, trials)[0])
