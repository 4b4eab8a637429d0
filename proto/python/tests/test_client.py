"""The installed package against a real service; `REMORA_BINARY` names the program."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from remora import Client, Task
from remora.v1 import cluster_service_pb2

BINARY = os.environ.get("REMORA_BINARY")
pytestmark = pytest.mark.skipif(not BINARY, reason="REMORA_BINARY does not name the program")


def start(*arguments: str) -> tuple[subprocess.Popen, str]:
    command = [BINARY, "serve", "--policy", "greedy-marginal", "--scenario", "urban-sensing", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = ""
    while not told.rstrip().endswith("}"):
        line = process.stdout.readline()
        assert line, f"it ended: {told}"
        told += line
    return process, json.loads(told)["listen"]


@pytest.fixture
def service() -> Iterator[str]:
    process, address = start("--listen", "127.0.0.1:0")
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def a_task(client: Client) -> Task:
    answer = client.clusters.Get(cluster_service_pb2.GetClusterRequest(id="urban-sensing"))
    return Task(kind=answer.cluster.task_kinds[0].name, image=answer.cluster.images[0].name)


def test_a_task_is_placed_and_ended(service: str) -> None:
    with Client(service) as client:
        task = a_task(client)
        placed = client.place("urban-sensing", task, alpha=0.25, request_id="once")
        assert placed.alpha == 0.25 and placed.candidates[0].node == placed.node
        assert client.place("urban-sensing", task, request_id="once").decision_id == placed.decision_id
        assert client.report("urban-sensing", placed.decision_id, response_s=3.0) is False
        assert client.report("urban-sensing", placed.decision_id) is True


def test_refusals_name_the_field(service: str) -> None:
    with Client(service) as client, pytest.raises(grpc.RpcError) as refused:
        client.place("urban-sensing", Task(kind="no-such-kind"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("task.kind:")


def test_a_swarm_chooses_among_its_nodes(service: str) -> None:
    with Client(service) as client:
        task = a_task(client)
        nodes = [c.node for c in client.place("urban-sensing", task, dry_run=True).candidates][:5]
        chosen = client.choose_nodes("urban-sensing", task, nodes, 3)
        assert len(set(chosen)) == 3 and set(chosen) <= set(nodes)
        assert chosen == client.choose_nodes("urban-sensing", task, nodes, 3), "choosing holds nothing"
        with pytest.raises(ValueError, match="count is 6"):
            client.choose_nodes("urban-sensing", task, nodes, 6)


def test_the_swarm_of_the_examples_runs(service: str) -> None:
    example = Path(__file__).resolve().parents[3] / "examples" / "python" / "swarm.py"
    told = subprocess.run([sys.executable, example, service], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("iteration 1: ") and told.stdout.endswith("the swarm stops\n"), told.stdout


def test_a_client_waits_for_a_restart(tmp_path) -> None:
    process, address = start("--listen", "127.0.0.1:0", "--data", str(tmp_path))
    with Client(address) as client:
        task = a_task(client)
        placed = client.place("urban-sensing", task)
        # Until it is on disk: a report waits for that.
        other = client.place("urban-sensing", task)
        client.report("urban-sensing", other.decision_id)
        process.kill()
        process.wait()
        again = threading.Timer(0.5, lambda: processes.append(start("--listen", address, "--data", str(tmp_path))[0]))
        processes: list[subprocess.Popen] = []
        again.start()
        time.sleep(0.1)
        assert client.report("urban-sensing", placed.decision_id, response_s=2.0) is False
        again.join()
        processes[0].kill()
        processes[0].wait()
