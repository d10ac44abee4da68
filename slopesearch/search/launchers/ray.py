"""RayLauncher: a worker as an actor on each core or GPU of a Ray cluster, which comes and goes."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from slopesearch.config import Precision, TrialConfig
from slopesearch.search.launchers import ray_cluster
from slopesearch.search.launchers.ray_cluster import Node, misfit, remote, sharing, why_unable
from slopesearch.search.launchers.ray_worker import Images, Introduction, RayWorker
from slopesearch.search.messages import Failed, Joined, Left, Message, Said
from slopesearch.training.data import content_hash
from slopesearch.wording import RequestError

LOOK = 1.0  # s between looks at which nodes there are
GRACE = 3.0  # s that further workers have to come before a study begins without them
NOBODY = -1  # the slot in whose name the launcher says what concerns none


@dataclass
class _Member:
    """A place on a node and the worker there, if it has one; the work that its slot was last given."""

    node: Node
    actor: Any = None
    work: Sequence[TrialConfig] = ()
    memory: int = 0
    lost: bool = False


class RayLauncher:
    """One actor for each core or GPU of the cluster, pinned to its node; of a node that joins, too.

    A worker that has introduced itself gets a slot, unless it is a misfit. A worker that died, was ended or
    reported a fault is replaced on its node when its slot is next started, as in `ProcessLauncher`. A slot
    whose node is gone has left. Ray itself tries nothing again.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *,
        precision: Precision,
        packs: bool = False,
        workers: int | None = None,
        most: int,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        self.devices: list[str] = []
        self._kind, self._folder, self._most = kind, folder.absolute(), most
        self._precision, self._packs = precision, packs
        self._sharing = sharing(ray_cluster.nodes(), kind, workers)
        self._members: list[_Member] = []  # by slot
        self._hired: dict[Any, _Member] = {}  # by the call for its introduction
        self._calls: dict[Any, int] = {}  # what busy slots are to answer: the call and its slot
        self._doubted: set[int] = set()  # busy slots of which Ray does not know yet what is dead
        self._misfits: dict[str, str] = {}  # nodes, and why they are of no use
        self._ready: deque[tuple[int, Message]] = deque()
        self._looked = 0.0  # time.monotonic
        self._parcel: list[Any] = []
        self._images = cache(self._find_images)
        try:
            self._await_workers(is_left)
        except BaseException:
            self.close()
            raise

    def shares(self) -> list[int]:
        """As the workers have said of their GPUs."""
        return [member.memory for member in self._members if not member.lost]

    def start(self, slot: int, configs: Sequence[TrialConfig]) -> None:
        """Send the configs to the slot's worker, a new one where it has none."""
        member = self._members[slot]
        if member.lost:
            return  # which the loop is about to hear
        if member.actor is None:
            self._employ(member)
        member.work = configs
        images = self._images(configs[0].dataset)
        self._calls[member.actor.start.remote(list(configs), images, self._parcel)] = slot

    def wait(self, timeout: float) -> tuple[int, Message] | None:
        """The next message; meanwhile nodes that come and go are noticed."""
        deadline = time.monotonic() + timeout
        while True:
            self._look_around()
            left = max(0.0, deadline - time.monotonic())
            if not self._ready:
                self._hear(min(left, LOOK))
            if self._ready:
                return self._ready.popleft()
            if left == 0:
                return None

    def answer(self, slot: int, stop: Collection[int]) -> None:
        """Send the verdict."""
        member = self._members[slot]
        if not member.lost and member.actor is not None:
            self._calls[member.actor.answer.remote(sorted(stop))] = slot

    def end(self, slot: int, reason: str) -> None:
        """Kill the slot's worker; of a busy worker, `wait` then gives a Failed with the reason."""
        self._dismiss(self._members[slot])
        if self._forget(slot):
            self._ready.append((slot, Failed(reason=reason)))

    def close(self) -> None:
        """Kill every worker, whatever it is doing."""
        for member in [*self._members, *self._hired.values()]:
            self._dismiss(member)
        self._calls.clear()
        self._doubted.clear()
        self._hired.clear()
        self._parcel.clear()

    # Workers come

    def _await_workers(self, is_left: Callable[[], bool]) -> None:
        """Wait for the first worker, and a little for the others. Raises RequestError where none comes.

        There are no slots where the user has left meanwhile.
        """
        deadline = time.monotonic() + ray_cluster.PATIENCE
        while not self._members and time.monotonic() < deadline:
            if is_left():
                return
            self._look_around()
            if self._misfits and not self._hired:
                break
            self._hear(LOOK)
        deadline = min(deadline, time.monotonic() + GRACE)
        while self._members and self._hired and time.monotonic() < deadline:
            self._hear(deadline - time.monotonic())
        if not self._members:
            self._refuse()
        kept = [(slot, said) for slot, said in self._ready if not isinstance(said, Joined)]
        self._ready = deque(kept)  # a slot that was there before the study began has not joined it

    def _refuse(self) -> None:
        what = "GPUs" if self._kind == "cuda" else "cores"
        raise RequestError(
            *(
                self._misfits.values()
                or [
                    f"no worker has started on the Ray cluster within {ray_cluster.PATIENCE:g} s; the usual "
                    f"reason is that other work has all of its {what}: `ray status` says so"
                ]
            )
        )

    def _look_around(self) -> None:
        """Look now and then which nodes are there: their places get a worker, and other slots are lost."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        there = ray_cluster.nodes()
        for slot, member in enumerate(self._members):
            if member.node.id not in {node.id for node in there}:
                self._lose(slot)
        for slot in self._doubted:
            self._calls[self._members[slot].actor.give_up.remote()] = slot
        self._doubted.clear()
        present = [m for m in (*self._members, *self._hired.values()) if not m.lost]
        taken = Counter(member.node.id for member in present)
        for node in there:
            if node.id in self._misfits:
                continue
            free = node.places(self._kind) * self._sharing - taken[node.id]
            for _ in range(min(free, self._most - len(present))):
                present.append(self._hire(node))

    def _hire(self, node: Node) -> _Member:
        member = _Member(node)
        self._employ(member)
        call = member.actor.introduce.remote(self._precision, self._packs, self._sharing)
        self._hired[call] = member
        return member

    def _employ(self, member: _Member) -> None:
        resource = {"num_cpus": 0, "num_gpus": 1 / self._sharing}
        if self._kind == "cpu":
            resource = {"num_cpus": 1 / self._sharing}
        actor = remote(RayWorker, member.node, max_restarts=0, max_task_retries=0, **resource)
        member.actor = actor.remote(member.node.host, self._kind)

    # Workers speak

    def _hear(self, timeout: float) -> None:
        """Take in all that has been answered, waited for until `timeout` s where that is nothing."""
        asked = [*self._calls, *self._hired]
        if not asked:
            time.sleep(timeout)
            return
        done, _ = ray.wait(asked, num_returns=1, timeout=timeout)
        if done:
            done, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        for call in done:
            if call in self._hired:
                self._welcome(call)
            else:
                self._take(call)

    def _welcome(self, call: Any) -> None:
        """Give a worker that has introduced itself a slot, or none where it is a misfit."""
        member = self._hired.pop(call)
        try:
            said: Introduction = ray.get(call)
            why = misfit(said, self._precision)
        except ActorUnavailableError:
            self._dismiss(member)  # and hire again, if the node is there at the next look
            return
        except RayError as error:
            if self._is_gone(member):
                return
            why = why_unable(member.node.host, error)
        if why is not None:
            self._dismiss(member)
            if member.node.id not in self._misfits:
                self._misfits[member.node.id] = why
                self._ready.append((NOBODY, Said(text=f"{why}; it is left out")))
            return
        member.memory = said.memory
        self._members.append(member)
        self.devices.append(f"{said.device}@{said.host}")
        self._ready.append((len(self._members) - 1, Joined()))

    def _take(self, call: Any) -> None:
        """Take in what a busy slot has answered; where it lacks the images, send them and ask again."""
        slot = self._calls.pop(call)
        member = self._members[slot]
        try:
            said = ray.get(call)
        except ActorUnavailableError:
            self._doubted.add(slot)  # the worker, its node or the network
            return
        except RayError as error:
            if self._is_gone(member):
                self._lose(slot)
                return
            said = (Failed(reason=f"{error}\nthe worker on {member.node.host} died"),)
        if said is None:
            self._send_images(slot)
            return
        self._ready.extend((slot, message) for message in said)
        if isinstance(said[-1], Failed) and not said[-1].out_of_memory:
            self._dismiss(member)

    def _send_images(self, slot: int) -> None:
        images = self._images(self._members[slot].work[0].dataset)
        if not self._parcel:
            self._parcel.append(ray.put(images.files()))  # one copy for each node that asks
        self.start(slot, self._members[slot].work)

    def _find_images(self, dataset: str) -> Images:
        return Images(dataset, self._folder, content_hash(dataset, self._folder))

    # Workers go

    def _is_gone(self, member: _Member) -> bool:
        return member.node.id not in {node.id for node in ray_cluster.nodes()}

    def _lose(self, slot: int) -> None:
        """Say that a slot has left, once."""
        member = self._members[slot]
        if member.lost:
            return
        member.lost = True
        self._forget(slot)
        self._ready.append((slot, Left(reason=f"the node {member.node.host} has left the Ray cluster")))

    def _forget(self, slot: int) -> bool:
        """Expect nothing more of a slot; whether something was."""
        calls = [call for call, other in self._calls.items() if other == slot]
        was_busy = bool(calls) or slot in self._doubted
        for call in calls:
            del self._calls[call]
        self._doubted.discard(slot)
        return was_busy

    def _dismiss(self, member: _Member) -> None:
        if member.actor is not None:
            ray.kill(member.actor, no_restart=True)
            member.actor = None
