"""A swarm whose own scheduler task asks Remora for the nodes of its next iteration.

Swarms such as Manta's run in a loop: workers, an aggregator, then a scheduler, which is the user's own code and says on
which nodes the next iteration runs (`world.schedule_next_iter(node_ids, task_alias)`) or stops (`world.stop_swarm()`).
Here the workers train on the data of their nodes. The scheduler drops those whose model is good enough, and of the
others lets Remora choose where the next round costs least data and time.

    pip install ../../proto/python
    remora serve --scenario urban-sensing
    python swarm.py [HOST:PORT]
"""

import sys
from dataclasses import dataclass, field

import grpc

from remora import Client, Task
from remora.v1 import cluster_service_pb2

GOOD_ENOUGH = 0.9
AT_A_TIME = 3


@dataclass
class World:
    """What a swarm gives its tasks; a stand-in that remembers what it was told."""

    accuracy: dict[str, float]
    scheduled: list[list[str]] = field(default_factory=list)
    stopped: bool = False

    def schedule_next_iter(self, node_ids: list[str], task_alias: str) -> None:
        self.scheduled.append(node_ids)

    def stop_swarm(self) -> None:
        self.stopped = True


def schedule(world: World, remora: Client, cluster_id: str, task: Task) -> None:
    """The scheduler task of one iteration."""
    behind = [node for node, accuracy in world.accuracy.items() if accuracy < GOOD_ENOUGH]
    if not behind:
        world.stop_swarm()
        return
    nodes = remora.choose_nodes(cluster_id, task, behind, min(AT_A_TIME, len(behind)), alpha=0.5)
    world.schedule_next_iter(nodes, "worker")


def main(address: str) -> None:
    with Client(address) as remora:
        known = remora.clusters.Get(cluster_service_pb2.GetClusterRequest(id="urban-sensing")).cluster
        task = Task(kind=known.task_kinds[0].name, image=known.images[0].name)
        candidates = remora.place("urban-sensing", task, dry_run=True, max_candidates=6).candidates
        world = World({candidate.node: 0.5 for candidate in candidates})
        while not world.stopped:
            schedule(world, remora, "urban-sensing", task)
            if not world.stopped:
                chosen = world.scheduled[-1]
                print(f"iteration {len(world.scheduled)}: {', '.join(chosen)}")
                # Each round makes a model better.
                world.accuracy |= {node: world.accuracy[node] + 0.2 for node in chosen}
    print("every node is good enough: the swarm stops")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
