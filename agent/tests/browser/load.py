"""How the panel does under load: 1,000 nodes, 1,000 applications, 100 events a second. `load.py REMORA`

For each screen: bytes of the page as sent and as read, time to its end, elements, longest and number of tasks of the
main thread over 50 ms while it is looked at. At the end, what each panel that is looked at costs the service.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import sync_playwright
from remora import Task
from remora.v1 import app_pb2, app_pb2_grpc, cluster_service_pb2
from service import FLAGS, PATIENCE, Service, browser, write

APPS = 1000
#: Cells of 22 nodes each, beside a cloud of 3.
CELLS = 46
EVENTS_PER_S = 100
#: How long each screen is looked at, and the service's time is counted, seconds.
LOOKING = 10
PANELS = 10
SCREENS = {
    "overview": "/",
    "applications": "/apps",
    "runs": "/runs",
    "decisions": "/placements/urban-sensing",
    "policies": "/policies",
    "evaluation": "/policies/evaluation?policy=pretrained",
    "triggers": "/triggers",
}
MANIFEST = """
name = "app-{number}"
about = "number {number} of many"
[learn]
command = ["true"]
[[trigger]]
name = "hourly"
on.schedule = {{ cron = "{minute} * * * *" }}
[[trigger]]
name = "data"
overlap = "buffer"
on.data = {{ count = 1000000000 }}
"""
WATCH = """
window.long = [];
new PerformanceObserver((list) => { for (const task of list.getEntries()) window.long.push(task.duration); })
    .observe({ type: "longtask", buffered: true });
"""
LOOKED = """() => {
    const [load] = performance.getEntriesByType("navigation");
    return {
        sent: load.encodedBodySize, read: load.decodedBodySize, ms: load.responseEnd - load.requestStart,
        elements: document.querySelectorAll("*").length, long: window.long,
    };
}"""


#: How often a page asked for itself anew.
ASKED = "performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch').length"


def registers(service: Service) -> app_pb2_grpc.AppServiceStub:
    apps = app_pb2_grpc.AppServiceStub(service.client()._channel)
    for number in range(APPS):
        manifest = MANIFEST.format(number=number, minute=number % 60)
        apps.Register(iter([app_pb2.RegisterAppRequest(manifest=manifest)]), timeout=PATIENCE)
        enable = app_pb2.CommandAppRequest(name=f"app-{number}", command=app_pb2.APP_COMMAND_ENABLE)
        apps.Command(enable, timeout=PATIENCE)
    return apps


def paced(stop: threading.Event, per_s: float, act: Callable[[int], None]) -> None:
    """Does it so often until it is told to stop."""
    began = time.monotonic()
    number = 0
    while not stop.is_set():
        act(number)
        number += 1
        time.sleep(max(0.0, began + number / per_s - time.monotonic()))


def works(service: Service, apps: app_pb2_grpc.AppServiceStub, stop: threading.Event) -> None:
    """Placements, their outcomes and notices of data, which change what screens show."""
    client = service.client()
    cluster = client.clusters.Get(cluster_service_pb2.GetClusterRequest(id="urban-sensing")).cluster
    task = Task(kind=cluster.task_kinds[0].name, image=cluster.images[0].name)
    open_ones: list[str] = []

    def places(_: int) -> None:
        open_ones.append(client.place("urban-sensing", task, max_candidates=5).decision_id)
        if len(open_ones) > 200:
            client.report("urban-sensing", open_ones.pop(0), response_s=3.0, transfer_bytes=1000)

    def tells(number: int) -> None:
        apps.Notify(app_pb2.NotifyRequest(app=f"app-{number % APPS}", key=str(number)), timeout=PATIENCE)

    for per_s, act in [(0.4 * EVENTS_PER_S, places), (0.2 * EVENTS_PER_S, tells)]:
        threading.Thread(target=paced, args=(stop, per_s, act), daemon=True).start()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share(service: Service) -> float:
    """Cores that the service uses now."""
    before, began = cpu_s(service.pid), time.monotonic()
    time.sleep(LOOKING)
    return (cpu_s(service.pid) - before) / (time.monotonic() - began)


def look(service: Service) -> None:
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=browser(), args=FLAGS)
        context = program.new_context(base_url=service.url)
        context.add_init_script(WATCH)
        print(f"{'screen':14}{'kB sent':>9}{'kB read':>9}{'ms':>7}{'elements':>10}{'longest ms':>12}{'long tasks':>12}")
        for name, path in SCREENS.items():
            page = context.new_page()
            page.goto(path)
            page.wait_for_timeout(1000 * LOOKING)
            told = page.evaluate(LOOKED)
            longest = max(told["long"], default=0.0)
            print(
                f"{name:14}{told['sent'] / 1000:9.1f}{told['read'] / 1000:9.1f}{told['ms']:7.0f}{told['elements']:10}"
                f"{longest:12.0f}{len(told['long']):12}"
            )
            page.close()
        alone = share(service)
        # Each in a browser of its own, as people have them.
        pages = [program.new_context(base_url=service.url).new_page() for _ in range(PANELS)]
        for page in pages:
            page.goto("/")
        page.wait_for_timeout(3000)
        before = sum(page.evaluate(ASKED) for page in pages)
        watched = share(service)
        asked = (sum(page.evaluate(ASKED) for page in pages) - before) / PANELS / LOOKING
        each = (watched - alone) / PANELS
        print(f"cores: {alone:.3f} without a panel, {each:.4f} for each of {PANELS} that ask {asked:.2f} times a second")
        program.close()


def main(binary: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        shown = subprocess.run([binary, "scenario", "show", "urban-sensing"], capture_output=True, text=True, check=True)
        scenario = shown.stdout.replace('name = "cell"\ncount = 4', f'name = "cell"\ncount = {CELLS}')
        [file] = write(Path(work), {"large.toml": scenario})
        service = Service(binary, Path(work) / "data", "--scenario", str(file))
        stop = threading.Event()
        try:
            works(service, registers(service), stop)
            look(service)
        finally:
            stop.set()
            service.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
