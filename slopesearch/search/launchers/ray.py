"""RayLauncher: a worker as an actor on each core or GPU of a Ray cluster, which comes and goes."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from slopesearch.config import Precision, TrialConfig
from slopesearch.search.launchers import ray_cluster
from slopesearch.search.launchers.ray_cluster import Node, misfit, remote, sharing, why_unable
from slopesearch.search.launchers.ray_worker import Images, Introduction, RayWorker
from slopesearch.search.messages import Failed, Finished, Joined, Left, Message, Reported, Said
from slopesearch.training.data import whole_hash
from slopesearch.wording import RequestError, StudyFailedError

LOOK = 1.0  # s between looks at which nodes there are
GRACE = 3.0  # s that further workers have to come before a study begins without them
HEAD = 20.0  # s that the head node may be silent; after 60 Ray ends the process without a word of ours
NOBODY = -1  # the slot in whose name the launcher says what concerns none
_STEPS = (Reported, Finished, Failed)  # what a busy slot is waited for


@dataclass
class _Member:
    """A place on a node and the worker there, if it has one; the bytes that it has for packs on a GPU."""

    node: Node
    actor: Any = None
    memory: int = 0
    lost: bool = False


class RayLauncher:
    """One actor for each core or GPU of the cluster, pinned to its node; of a node that joins, too.

    A worker that has introduced itself, and has the images, gets a slot, unless it is a misfit. A worker that
    died, was ended or reported a fault is replaced on its node when its slot is next started, as in
    `ProcessLauncher`. A slot whose node is gone has left. Ray itself tries nothing again.
    """

    def __init__(
        self,
        kind: str,
        folder: Path,
        *,
        dataset: str,
        precision: Precision,
        pack: int | None = None,
        workers: int | None = None,
        most: int,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        self.devices: list[str] = []
        self._kind, self._most = kind, most
        self._precision, self._pack = precision, pack
        self._sharing = sharing(ray_cluster.nodes(), kind, None if workers is None else min(workers, most))
        self._images = Images(dataset, folder.absolute(), whole_hash(dataset, folder))
        self._members: list[_Member] = []  # by slot
        self._hired: dict[Any, _Member] = {}  # by the call for its introduction
        self._calls: dict[Any, int] = {}  # what busy slots are to answer: the call and its slot
        self._doubted: set[int] = set()  # busy slots of which Ray does not know yet what is dead
        self._misfits: dict[str, str] = {}  # nodes, and why they are of no use
        self._failed: set[str] = set()  # nodes of which one worker could not begin
        self._ready: deque[tuple[int, Message]] = deque()
        self._looked = 0.0  # time.monotonic
        self._head_missed: float | None = None  # since when
        self._parcel: list[Any] = []  # the images, once a node has asked for them
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
        self._calls[member.actor.start.remote(list(configs))] = slot

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
        unread = [one for one in self._ready if one[0] == slot and isinstance(one[1], _STEPS)]
        for one in unread:
            self._ready.remove(one)
        if self._forget(slot) or unread:
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
            self._hear(max(0.0, deadline - time.monotonic()))
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
        if not ray_cluster.head_answers():
            self._miss_head()
            return
        self._head_missed = None
        there = ray_cluster.nodes()
        for slot, member in enumerate(self._members):
            if member.node.id not in {node.id for node in there}:
                self._lose(slot)
        for slot in self._doubted:
            self._calls[self._members[slot].actor.give_up.remote()] = slot
        self._doubted.clear()
        present = [m for m in (*self._members, *self._hired.values()) if not m.lost]
        taken = Counter(member.node.id for member in present)
        places = {node.id: node.places(self._kind) * self._sharing for node in there}
        for _ in range(self._most - len(present)):
            free = [n for n in there if n.id not in self._misfits and taken[n.id] < places[n.id]]
            if not free:
                break
            node = min(free, key=lambda node: taken[node.id] / places[node.id])  # as many on each
            taken[node.id] += 1
            member = _Member(node)
            self._hired[self._employ(member)] = member

    def _miss_head(self) -> None:
        if self._head_missed is None:
            self._head_missed = self._looked
        if self._looked - self._head_missed > HEAD:
            raise StudyFailedError(
                f"the head node of the Ray cluster has not answered for {HEAD:g} s; what was finished is "
                "stored: start the cluster again, and the same command goes on from there"
            )

    def _employ(self, member: _Member) -> Any:
        """Start the place's worker, which introduces itself before all else; the call for that."""
        resource = {"num_cpus": 0, "num_gpus": 1 / self._sharing}
        if self._kind == "cpu":
            resource = {"num_cpus": 1 / self._sharing}
        actor = remote(RayWorker, member.node, max_restarts=0, max_task_retries=0, **resource)
        member.actor = actor.remote(member.node.host, self._kind)
        return self._ask(member)

    def _ask(self, member: _Member) -> Any:
        packs = self._pack != 1
        asked = self._precision, packs, self._sharing, self._images, self._parcel
        return member.actor.introduce.remote(*asked)

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
            why = misfit(said, self._precision, self._pack)
        except ActorUnavailableError:
            self._dismiss(member)  # and hire again, if the node is there at the next look
            return
        except RayError as error:
            if self._is_gone(member):
                return
            if member.node.id not in self._failed:  # once is bad luck
                self._failed.add(member.node.id)
                self._dismiss(member)
                return
            why = why_unable(member.node.host, error)
        if why is not None:
            self._dismiss(member)
            if member.node.id not in self._misfits:
                self._misfits[member.node.id] = why
                self._ready.append((NOBODY, Said(text=f"{why}; it is left out")))
            return
        if said.lacks_images:
            if not self._parcel:
                self._parcel.append(ray.put(self._images.files()))  # one copy for each node that asks
            self._hired[self._ask(member)] = member
            return
        if said.no_packs is not None:
            words = f"packs cannot be trusted on {said.device} of {said.host}: {said.no_packs}"
            self._ready.append((NOBODY, Said(text=f"trials train one at a time, since {words}")))
        member.memory = 0 if said.no_packs is not None else said.memory
        self._members.append(member)
        self.devices.append(f"{said.device}@{said.host}")
        self._ready.append((len(self._members) - 1, Joined()))

    def _take(self, call: Any) -> None:
        """Take in what a busy slot has answered."""
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
        self._ready.extend((slot, message) for message in said)
        if isinstance(said[-1], Failed) and not said[-1].out_of_memory:
            self._dismiss(member)

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
