"""What must not get through: other sites, forged and ended sessions, too much at once, and scripts in names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from remora.v1 import cluster_pb2, cluster_service_pb2
from screens import SCREENS
from service import CHECKPOINT, PATIENCE, Service, place, write
from test_journeys import asks, figure, makes_token, registers

#: In every name that takes it.
HOSTILE = "<img src=x onerror=alert(1)>'\"&<script>alert(1)</script>"
#: The same where a slash is none of a name's.
HOSTILE_FILE = "<img src=x onerror=alert(1)>'&.txt"


class Elsewhere(ThreadingHTTPServer):
    """Another site, whose only page is `page`."""

    page = ""

    def __init__(self) -> None:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(self.server.page.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    site = Elsewhere()
    yield site
    site.shutdown()
    site.server_close()


@pytest.fixture
def page(chromium) -> Iterator:
    """A browser in which things may go wrong."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_another_site_can_do_nothing_here(lively, elsewhere: Elsewhere, page, name: str) -> None:
    service, _ = lively
    fields = {"name": "shout", "command": "5", "reason": "mine", "csrf": "0"}
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    elsewhere.page = f"""<form method="post" action="{service.url}/act/AppService/Command">{inputs}</form>
        <iframe src="{service.url}/"></iframe>
        <script>
        window.read = fetch("{service.url}/", {{ credentials: "include" }}).then((a) => a.text()).catch(() => "nothing");
        </script>"""
    page.goto(f"http://{name}:{elsewhere.server_port}/")
    assert page.evaluate("window.read") == "nothing", "another site reads ours"
    framed = page.frames[1]
    framed.wait_for_load_state()
    assert "Overview" not in framed.content(), "another site shows ours"
    with page.expect_navigation():
        page.evaluate("document.forms[0].submit()")
    assert "another site's page" in page.content()
    assert "retired" not in service.remora("app", "list")


def test_sessions_cannot_be_made_up_stolen_or_outlived(guarded: Service, elsewhere: Elsewhere, visitor, page) -> None:
    page.context.add_cookies([{"name": "remora_session", "value": "0" * 64, "url": guarded.url}])
    page.goto(guarded.url)
    assert page.url.endswith("/sign-in")

    admin = visitor(guarded.url)
    admin.signs_in(guarded.token)
    cookie = next(cookie for cookie in admin.context.cookies() if cookie["name"] == "remora_session")
    assert cookie["httpOnly"] and cookie["secure"] and cookie["sameSite"] == "Strict"
    assert admin.page.evaluate("document.cookie") == ""
    # A link from another site leads to the door even those who are signed in.
    elsewhere.page = f'<a href="{guarded.url}/">here</a>'
    page.context.add_cookies([cookie])
    page.goto(f"http://localhost:{elsewhere.server_port}/")
    page.get_by_role("link").click()
    page.wait_for_url("**/sign-in")

    # A page that somebody looks at while their token is revoked goes away by itself.
    secret = makes_token(admin, "vera", "viewer")
    viewer = visitor(guarded.url)
    viewer.signs_in(secret)
    admin.goes("/access")
    row = admin.page.get_by_role("row").filter(has=admin.page.get_by_role("cell", name="vera", exact=True))
    admin.opens("Revoke", row).locator("button").click()
    admin.sees("the token of vera is revoked")
    viewer.page.wait_for_url("**/sign-in")
    # Who signed out is out, with the same cookie too.
    admin.page.get_by_role("button", name="Sign out").click()
    admin.page.wait_for_url("**/sign-in")
    page.context.add_cookies([cookie])
    page.goto(f"{guarded.url}/apps")
    assert page.url.endswith("/sign-in")


def test_too_much_at_once_is_refused_and_said(lively, visitor, tmp_path) -> None:
    service, _ = lively
    operator = visitor(service.url)
    operator.goes("/apps/learner")
    large = tmp_path / "large"
    large.write_bytes(b"0" * (23 << 20))
    form = operator.opens("Give data")
    field = form.get_by_label("Files")
    field.set_input_files(large)
    told = field.evaluate("field => field.validationMessage")
    assert told == "These are 23 MiB, and 16 MiB fit here."
    # Without scripts the service says so.
    field.evaluate("field => field.setCustomValidity('')")
    with operator.page.expect_response("**/act/**") as answer:
        form.locator("button").click()
    assert answer.value.status == 413
    operator.sees("more was sent than the 20 MiB that fit here")
    # And it goes on.
    operator.goes("/apps/learner")
    operator.sees("What moved it")


def neutral(someone) -> None:
    """Nothing that was written into the page became part of it."""
    found = someone.page.evaluate(
        "[...document.querySelectorAll('img, script:not([src$=\"assets/panel.js\"]), [onerror]')].map(one => one.outerHTML)"
    )
    assert not found, f"{someone.page.url}: {found}"


def hostile_cluster(service: Service) -> tuple[str, str]:
    """A cluster all of whose kinds of names are hostile, and a failed decision there."""
    with service.client() as client:
        asked = cluster_service_pb2.GetClusterRequest(id="urban-sensing")
        got = MessageToDict(client.clusters.Get(asked).cluster, preserving_proto_field_name=True)
        kind, image = got["task_kinds"][0]["name"], got["images"][0]["name"]
        node, site = got["nodes"][0]["name"], got["switches"][0]
        names = {old: f"{HOSTILE} {old}" for old in [got["id"], kind, image, node, site]}

        def renamed(told):
            if isinstance(told, dict):
                return {key: renamed(value) for key, value in told.items()}
            if isinstance(told, list):
                return [renamed(value) for value in told]
            return names.get(told, told) if isinstance(told, str) else told

        cluster = ParseDict(renamed(got), cluster_pb2.Cluster())
        client.register(cluster)
        task = cluster_pb2.Task(kind=names[kind], image=names[image])
        decision = client.place(cluster.id, task, among=[names[node]]).decision_id
        client.report(cluster.id, decision, failed=True, reason=HOSTILE)
    return cluster.id, decision


def test_scripts_in_names_stay_text(lively, visitor, tmp_path) -> None:
    service, filled = lively
    operator = visitor(service.url)
    cluster, decision = hostile_cluster(service)
    # Names of applications and triggers are refused.
    for field, manifest in [
        ("name", f"name = '''{HOSTILE}'''\n[execute]\ncommand = ['true']\n"),
        ("trigger", f"name = 'a'\n[execute]\ncommand = ['true']\n[[trigger]]\nname = '''{HOSTILE}'''\non.manual = {{}}\n"),
    ]:
        operator.goes("/apps")
        form = operator.opens("Register an application")
        form.get_by_label("app.toml").set_input_files(write(tmp_path / field, {"app.toml": manifest}))
        form.locator("button").click()
        operator.sees("That did not work")
        assert field in operator.text() and "onerror" in operator.text()
        neutral(operator)
    # What it says of itself, what it writes and what its files are called is taken.
    manifest = f"""name = "hostile"
about = '''{HOSTILE}'''
files = ["hostile.sh"]
[execute]
command = ["sh", "./hostile.sh"]
"""
    script = f"""cat "$REMORA_INPUT/request"; cp "$REMORA_INPUT/request" "$REMORA_OUTPUT/{HOSTILE_FILE}"; exit 3\n"""
    registers(operator, write(tmp_path / "hostile", {"app.toml": manifest, "hostile.sh": script}), "hostile")
    operator.page.get_by_role("button", name="Enable", exact=True).click()
    run = asks(operator, "hostile", HOSTILE)
    operator.goes(f"/runs/{run}")
    figure(operator, "Status").get_by_text("failed", exact=True).wait_for()
    assert HOSTILE in operator.page.locator("pre.log").inner_text()
    with operator.page.expect_download() as download:
        operator.page.get_by_role("link", name=HOSTILE_FILE).click()
    assert download.value.path().read_text() == HOSTILE
    # Reasons, notes, tokens.
    operator.goes("/policies")
    form = operator.opens("Give a role")
    form.get_by_label("Reason").fill(HOSTILE)
    form.locator("button").click()
    operator.sees(HOSTILE)
    neutral(operator)
    makes_token(operator, HOSTILE, "viewer")
    neutral(operator)
    hostile = quote(HOSTILE, safe="")
    own = [
        "/apps/hostile",
        f"/runs/{run}",
        f"/placements/{quote(cluster, safe='')}",
        f"/placements/{quote(cluster, safe='')}/{decision}",
        f"/?told={hostile}",
        f"/apps?q={hostile}",
        f"/apps/{hostile}",
        f"/audit?page={hostile}",
        f"/{hostile}",
    ]
    for path in [screen.at(filled) for screen in SCREENS] + own:
        operator.goes(path)
        neutral(operator)
    operator.goes("/placements")
    operator.page.get_by_role("link", name=cluster).click()
    operator.sees(HOSTILE)
    # Parts that are replaced while somebody looks are no other.
    asks(operator, "hostile", HOSTILE)
    operator.page.get_by_role("row").filter(has_text="hostile.2").get_by_text("failed").first.wait_for()
    neutral(operator)


def test_scripts_in_names_and_notes_of_policies_stay_text(guarded: Service, visitor) -> None:
    told = guarded.remora("policy", "upload", str(CHECKPOINT), "--name", HOSTILE, "--note", HOSTILE, token=guarded.token)
    assert told.startswith(f"{HOSTILE} is there as ")
    admin = visitor(guarded.url)
    admin.signs_in(guarded.token)
    admin.goes("/policies")
    row = admin.page.get_by_role("row").filter(has_text="beside the baselines")
    form = admin.opens("Give a role", row)
    form.get_by_label("Role").select_option("champion")
    form.get_by_label("Reason").fill(HOSTILE)
    form.locator("button").click()
    admin.sees(f"champion is {HOSTILE}")
    neutral(admin)
    with guarded.client(guarded.token) as client:
        decision = place(client)[0]
    for path in [
        "/policies",
        "/policies/evaluation?policy=champion",
        "/policies/preview?policy=champion",
        "/placements/urban-sensing",
        f"/placements/urban-sensing/{decision}",
    ]:
        admin.goes(path)
        admin.sees(HOSTILE)
        neutral(admin)
    # The audit log shows details as JSON, in which quotes are escaped.
    admin.goes("/audit")
    admin.sees(HOSTILE.replace('"', '\\"'))
    neutral(admin)
