"""Registers a cluster of three machines with `remora serve` and asks where a task should run.

    python place.py [HOST:PORT]
"""

import sys
from pathlib import Path

import grpc

# Stubs are made from the .proto files at import; they are the reference for every field.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto" / "proto"))
cluster_pb2 = grpc.protos("remora/v1/cluster.proto")
service_pb2, cluster_grpc = grpc.protos_and_services("remora/v1/cluster_service.proto")
placement_pb2, placement_grpc = grpc.protos_and_services("remora/v1/placement.proto")

MB = 1_000_000


def node(name: str, kind: str, arch: str, cores: int) -> cluster_pb2.Node:
    return cluster_pb2.Node(
        name=name, kind=kind, arch=arch, cpu_millis=1000 * cores,
        memory_bytes=4000 * MB, disk_bytes=32_000 * MB, startup_s=1.0,
    )


def link(name: str, mb_per_s: float, price: float) -> cluster_pb2.Link:
    """Ties something to the switch; a byte over a dear link counts `price` times."""
    rate = mb_per_s * MB
    return cluster_pb2.Link(
        outer=name, inner="switch", up_bytes_per_s=rate, down_bytes_per_s=rate, latency_s=0.01, price=price
    )


def cluster() -> cluster_pb2.Cluster:
    """Two boards in a workshop, a virtual machine far away; the video is on one of the boards."""
    layers = [cluster_pb2.Layer(name="sha256:1", bytes=300 * MB)]
    return cluster_pb2.Cluster(
        id="workshop",
        # What the dial weighs time and data in: what a task took so far, on average.
        reference_response_s=20.0,
        reference_moved_bytes=100.0 * MB,
        nodes=[node("camera-box", "nuc", "amd64", 4), node("spare", "nuc", "amd64", 4), node("vm", "vm", "amd64", 16)],
        registries=["registry"],
        switches=["switch"],
        links=[link("camera-box", 100, 1), link("spare", 100, 1), link("vm", 3, 4), link("registry", 10, 4)],
        images=[cluster_pb2.Image(name="detector", variants=[cluster_pb2.ImageVariant(arch="amd64", layers=layers)])],
        datasets=[cluster_pb2.Dataset(name="video", bytes=500 * MB, homes=["camera-box"])],
        task_kinds=[
            cluster_pb2.TaskKind(
                name="detect", cpu_millis=2000, cpu_use_millis=2000, memory_bytes=500 * MB,
                execution=[
                    cluster_pb2.ExecutionTime(device_kind="nuc", mean_s=8.0),
                    cluster_pb2.ExecutionTime(device_kind="vm", mean_s=3.0),
                ],
            )
        ],
    )


def main(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        clusters = cluster_grpc.ClusterServiceStub(channel)
        clusters.Register(service_pb2.RegisterClusterRequest(cluster=cluster()))
        task = cluster_pb2.Task(kind="detect", image="detector", inputs=["video"])
        request = placement_pb2.PlaceRequest(cluster_id="workshop", task=task, alpha=0.5, dry_run=True)
        answer = placement_grpc.PlacementServiceStub(channel).Place(request)
    print(f"run it on {answer.node} ({answer.policy}), done in {answer.predicted_completion_s:.1f} s")
    for c in answer.candidates:
        print(f"  {c.node:12} pull {c.pull_s:5.1f} s, fetch {c.fetch_s:5.1f} s, execute {c.execution_s:4.1f} s, "
              f"{(c.image_bytes + c.input_bytes) / MB:.0f} MB over the network")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
