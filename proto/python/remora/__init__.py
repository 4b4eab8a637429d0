"""Client of the Remora placement service.

>>> from remora import Client, Task
>>> with Client("127.0.0.1:50051") as remora:                       # doctest: +SKIP
...     placed = remora.place("workshop", Task(kind="detect", image="detector", inputs=["video"]))
...     print(placed.node)
...     remora.report("workshop", placed.decision_id, response_s=8.2)
"""

from remora.client import Client
from remora.v1.cluster_pb2 import Cluster, Facts, Task
from remora.v1.placement_pb2 import PlaceResponse

__all__ = ["Client", "Cluster", "Facts", "PlaceResponse", "Task"]
