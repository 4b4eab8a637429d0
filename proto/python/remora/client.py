"""The calls that orchestrators make, with retries that do no harm."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import grpc

from remora.v1 import cluster_pb2, cluster_service_pb2, cluster_service_pb2_grpc
from remora.v1 import placement_pb2, placement_pb2_grpc, policy_pb2_grpc

# A service that restarts is gone for a second or two. Placements carry the name of their request, and reports that of
# their decision, so that asking again changes nothing.
_RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "remora.v1.PlacementService"}, {"service": "remora.v1.ClusterService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Client:
    """A connection to a service; every call raises `grpc.RpcError` when it is refused.

    `address` is `HOST:PORT`. With `ca`, the path of a PEM file, or `tls=True`, the connection is encrypted; `token`
    says who calls. `timeout` holds for each call, seconds. The stubs `clusters`, `placements` and `policies` have all
    calls of the service, as the .proto files describe them.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        tls: bool = False,
        timeout: float = 10.0,
    ) -> None:
        options = [("grpc.service_config", json.dumps(_RETRY)), ("grpc.enable_retries", 1)]
        if ca is not None or tls:
            roots = Path(ca).read_bytes() if ca is not None else None
            credentials = grpc.ssl_channel_credentials(root_certificates=roots)
            self._channel = grpc.secure_channel(address, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(address, options=options)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._timeout = timeout
        self.clusters = cluster_service_pb2_grpc.ClusterServiceStub(self._channel)
        self.placements = placement_pb2_grpc.PlacementServiceStub(self._channel)
        self.policies = policy_pb2_grpc.PolicyServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def register(
        self, cluster: cluster_pb2.Cluster, facts: cluster_pb2.Facts | None = None
    ) -> cluster_service_pb2.RegisterClusterResponse:
        """Enters a cluster, or replaces the one with the same id."""
        request = cluster_service_pb2.RegisterClusterRequest(cluster=cluster, facts=facts)
        return self.clusters.Register(request, timeout=self._timeout, metadata=self._metadata)

    def place(
        self,
        cluster_id: str,
        task: cluster_pb2.Task,
        *,
        alpha: float | None = None,
        among: Iterable[str] = (),
        dry_run: bool = False,
        request_id: str | None = None,
        max_candidates: int | None = None,
    ) -> placement_pb2.PlaceResponse:
        """Chooses a node for a task.

        `alpha` is the dial: weight of data moved against response time, 0 to 1; left out, as the service is configured.
        `among` names the nodes to choose among; empty for all. Without a `request_id` the call gets one of its own.
        """
        request = placement_pb2.PlaceRequest(
            cluster_id=cluster_id,
            task=task,
            alpha=alpha,
            among=among,
            dry_run=dry_run,
            request_id=request_id or uuid.uuid4().hex,
            max_candidates=max_candidates,
        )
        return self.placements.Place(request, timeout=self._timeout, metadata=self._metadata)

    def report(
        self,
        cluster_id: str,
        decision_id: str,
        *,
        failed: bool = False,
        response_s: float | None = None,
        transfer_bytes: int | None = None,
        reason: str = "",
    ) -> bool:
        """Tells what became of a decision; true if that was known already."""
        request = placement_pb2.ReportOutcomeRequest(
            cluster_id=cluster_id,
            decision_id=decision_id,
            failed=failed,
            response_s=response_s,
            transfer_bytes=transfer_bytes,
            reason=reason,
        )
        answer = self.placements.ReportOutcome(request, timeout=self._timeout, metadata=self._metadata)
        return answer.already_reported

    def choose_nodes(
        self, cluster_id: str, task: cluster_pb2.Task, among: Iterable[str], count: int, *, alpha: float | None = None
    ) -> list[str]:
        """The best `count` of some nodes for tasks alike, for a scheduler that starts them itself.

        Each choice counts those before it as placed; at the end none is. Raises `ValueError` when `count` is more than
        there are nodes.
        """
        left = list(dict.fromkeys(among))
        if count > len(left):
            raise ValueError(f"count is {count}, but there are {len(left)} nodes to choose among")
        placed: list[placement_pb2.PlaceResponse] = []
        try:
            for _ in range(count):
                placed.append(self.place(cluster_id, task, alpha=alpha, among=left, max_candidates=1))
                left.remove(placed[-1].node)
        finally:
            for decision in placed:
                self.report(cluster_id, decision.decision_id, failed=True, reason="chosen, and started elsewhere")
        return [decision.node for decision in placed]
