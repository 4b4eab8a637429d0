"""The real program, serving on free ports, and what fills it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from remora import Client, Task

#: The checkpoint that ships, as a file.
CHECKPOINT = Path(__file__).parents[3] / "policies" / "pretrained" / "policy.safetensors"
#: Whoever waits for something gives it so long, seconds: machines that test are slow at times.
PATIENCE = 60


#: Of the browser: nothing is fetched besides the pages, and root has no sandbox.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser() -> str | None:
    """The program that shows pages, where there is one."""
    named = os.environ.get("REMORA_TEST_BROWSER")
    found = (shutil.which(name) for name in ("chromium-headless-shell", "chromium", "google-chrome"))
    return named or next(filter(None, found), None)


def wait(what: str, come: Callable[[], object], pause: float = 0.05):
    """Waits until something is there, and answers with it."""
    until = time.monotonic() + PATIENCE
    while not (got := come()):
        assert time.monotonic() < until, f"waited {PATIENCE} s for {what}"
        time.sleep(pause)
    return got


class Service:
    """`remora serve` on a folder of its own.

    `url` is the panel's address, `grpc` that of the API, `link` what signs in the first administrator, with `--auth`.
    """

    def __init__(self, binary: str, folder: Path, *arguments: str) -> None:
        listen = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", str(folder)]
        self._start(binary, ["--json", "serve", "--policy", "greedy-marginal", *listen, *arguments])
        told = ""
        while not told.rstrip().endswith("}"):
            told += self._line()
        told = json.loads(told)
        self.grpc, self.url = told["listen"], f"http://{told['http']}"

    def _start(self, binary: str, arguments: list[str]) -> None:
        self.binary = binary
        command = [binary, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self._said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _line(self) -> str:
        line = self._process.stdout.readline()
        assert line, f"it ended: {''.join(self._said)}"
        return line

    def _listen(self) -> None:
        for line in self._process.stderr:
            self._said.append(line)

    def said(self, pattern: str) -> str:
        """The first group of a line that it wrote to stderr."""
        return wait(pattern, lambda: next((m[1] for line in self._said if (m := re.search(pattern, line))), None))

    @property
    def link(self) -> str:
        return self.said(r"open once: (\S+)")

    @property
    def token(self) -> str:
        """The first administrator's."""
        return self.said(r"first administrator, shown this once: (\S+)")

    def remora(self, *arguments: str, token: str | None = None) -> str:
        """A command of ours against it; what it prints."""
        environment = {**os.environ, "REMORA_SERVER": f"http://{self.grpc}"}
        if token:
            environment["REMORA_TOKEN"] = token
        done = subprocess.run(
            [self.binary, *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment
        )
        assert done.returncode == 0, f"remora {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def client(self, token: str | None = None) -> Client:
        return Client(self.grpc, token=token, timeout=PATIENCE)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(PATIENCE) == 0, "".join(self._said)
        finally:
            self._process.kill()


class Quickstart(Service):
    """`remora quickstart` after the shortest of trainings: a service over a simulated cluster at work."""

    def __init__(self, binary: str, folder: Path) -> None:
        listen = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        self._start(binary, ["quickstart", "--minutes", "0.02", "--out", str(folder), *listen])
        self.grpc = self._told(r"Serving the trained policy on (\S+) ")
        self.url = self._told(r"Control Panel is at (\S+)/")

    def _told(self, pattern: str) -> str:
        while not (found := re.search(pattern, self._line())):
            pass
        return found[1]


#: Answers in capital letters; a number as a request is the code that it ends with instead.
SHOUT = """
name = "shout"
about = "answers in capital letters"
failures = { quarantine_after = 100 }
[execute]
command = ["sh", "./shout.sh"]
awake = { idle_s = 1 }
"""
SHOUT_FILES = {
    "app.toml": SHOUT.replace("[execute]", 'files = ["shout.sh"]\n[execute]'),
    "shout.sh": """read -r asked < "$REMORA_INPUT/request"
echo "it was asked: $asked"
case "$asked" in [0-9]*) exit "$asked" ;; esac
tr a-z A-Z < "$REMORA_INPUT/request" > "$REMORA_OUTPUT/response"
""",
}

#: Learns a number, the smaller the better.
LEARNER = """
name = "learner"
about = "learns a number, the smaller the better"
[execute]
command = ["sh", "-c", "cat $REMORA_MODEL > $REMORA_OUTPUT/response"]
awake = { needs_model = true, idle_s = 1 }
[learn]
command = ["sh", "-c", "cat $REMORA_INPUT/* > $REMORA_OUTPUT/model; echo learnt $(cat $REMORA_OUTPUT/model)"]
[evaluate]
command = ["sh", "-c", '''
pairs() { printf "$1"; for i in 1 2 3; do printf ",$1"; done; }
champion=""
if [ -n "$REMORA_CHAMPION" ]; then champion=",\\"champion\\":[$(pairs $(cat $REMORA_CHAMPION))]"; fi
echo "{\\"metric\\":\\"number\\",\\"candidate\\":[$(pairs $(cat $REMORA_MODEL))]$champion}" > $REMORA_OUTPUT/scores.json
''']
[gate]
samples = 4
[[trigger]]
name = "data"
on.data = {}
[[trigger]]
name = "weekly"
on.schedule = { cron = "0 7 * * MON" }
"""

#: Fails whatever it is asked.
FAILS = """
name = "fails"
about = "fails whatever it is asked"
failures = { quarantine_after = 1 }
[execute]
command = ["sh", "-c", "echo there is no pump at this address; exit 3"]
"""


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def place(client: Client, cluster: str = "urban-sensing", count: int = 1) -> list[str]:
    """Decisions on tasks of the first kind that it has."""
    from remora.v1 import cluster_service_pb2

    answer = client.clusters.Get(
        cluster_service_pb2.GetClusterRequest(id=cluster), timeout=PATIENCE, metadata=client._metadata
    )
    task = Task(kind=answer.cluster.task_kinds[0].name, image=answer.cluster.images[0].name)
    return [client.place(cluster, task).decision_id for _ in range(count)]


def fill(service: Service, folder: Path) -> dict[str, str]:
    """Something of everything: what screens are addressed with."""
    write(folder / "shout", SHOUT_FILES)
    for name, manifest in [("learner", LEARNER), ("fails", FAILS)]:
        write(folder / name, {"app.toml": manifest})
    for name in ["shout", "learner", "fails"]:
        service.remora("app", "register", str(folder / name))
        service.remora("app", "enable", name)
    for day, number in [("monday", "5"), ("tuesday", "3")]:
        data = write(folder / "data", {day: number})[0]
        service.remora("app", "notify", "learner", str(data))
        service.remora("app", "wait", "learner", "--champion", "2" if day == "monday" else "3")
    request = write(folder / "data", {"request": "hello\n"})[0]
    service.remora("app", "run", "shout", "--input", str(request), "--out", str(folder / "answer"))
    wrong = subprocess.run(
        [service.binary, "app", "run", "fails", "--input", str(request), "--server", f"http://{service.grpc}"],
        capture_output=True,
        timeout=PATIENCE,
    )
    assert wrong.returncode == 1, wrong.stdout
    with service.client() as client:
        decisions = place(client, count=4)
        client.report("urban-sensing", decisions[0], response_s=3.5, transfer_bytes=1000)
        client.report("urban-sensing", decisions[1], failed=True, reason="the node lost power")
    service.remora("policy", "upload", str(CHECKPOINT), "--name", "uploaded")
    return {"run": "shout.1", "failed": "fails.1", "decision": decisions[0], "policy": "uploaded"}
