"""What people come to do, from beginning to end, through the page alone."""

from __future__ import annotations

import re

from screens import SCREENS
from service import FAILS, LEARNER, SHOUT_FILES, Service, place, wait, write


def makes_token(admin, name: str, role: str) -> str:
    """The secret of a new token, which the page shows once."""
    admin.goes("/access")
    form = admin.opens("Make a token")
    form.get_by_label("Who uses it").fill(name)
    form.get_by_label("Role").select_option(label=next(o for o in form.locator("option").all_inner_texts() if o.startswith(role)))
    form.locator("button").click()
    admin.sees("This is shown only now")
    return admin.page.locator("main pre").inner_text()


def registers(operator, files: list, app: str) -> None:
    operator.goes("/apps")
    form = operator.opens("Register an application")
    form.get_by_label("app.toml").set_input_files(files)
    form.locator("button").click()
    operator.sees(f"{app} is registered")
    assert operator.page.url.split("?")[0].endswith(f"/apps/{app}")


def asks(operator, app: str, request: str) -> str:
    """The run that a request led to."""
    operator.goes(f"/apps/{app}")
    form = operator.opens("Execute")
    form.get_by_label("Request").fill(request)
    form.locator("button").click()
    told = operator.page.get_by_role("status")
    return re.search(r"run (\S+) was made", told.inner_text())[1]


def figure(someone, name: str):
    """One of the figures in boxes."""
    return someone.page.locator(f'dl.figures div:has(dt:text-is("{name}")) dd').first


def test_an_application_from_the_first_day_on(guarded: Service, visitor, tmp_path) -> None:
    admin = visitor(guarded.url)
    admin.goes(guarded.link)
    admin.sees("(admin)")
    secret = makes_token(admin, "olga", "operator")
    # The link signs in once.
    stranger = visitor(guarded.url)
    stranger.goes(guarded.link)
    stranger.sees("this link was used already")

    operator = visitor(guarded.url)
    operator.signs_in(secret)
    operator.sees("olga (operator)")
    registers(operator, write(tmp_path / "learner", {"app.toml": LEARNER}), "learner")
    operator.page.get_by_role("button", name="Enable", exact=True).click()
    operator.sees("learner is asleep.idle")
    # Data makes it learn; the page tells by itself.
    for typed, champion in [("5", "version 2"), ("3", "version 3")]:
        form = operator.opens("Give data")
        form.get_by_label("Contents").fill(typed)
        form.locator("button").click()
        operator.sees("the data is taken")
        figure(operator, "Champion").get_by_text(champion, exact=True).wait_for()
    operator.sees("better: 3.0000 against the champion's 5.0000")
    # What it learnt answers.
    run = asks(operator, "learner", "now")
    operator.goes(f"/runs/{run}")
    figure(operator, "Status").get_by_text("succeeded", exact=True).wait_for()
    with operator.page.expect_download() as download:
        operator.page.get_by_role("link", name="response").click()
    assert download.value.path().read_text().strip() == "3"
    # The one before answers again.
    operator.goes("/apps/learner")
    form = operator.opens("Roll back")
    form.get_by_label("Reason").fill("too good to be true")
    form.locator("button").click()
    operator.sees("rolled back")
    assert figure(operator, "Champion").inner_text() == "version 2"
    # Data comes as files too.
    form = operator.opens("Give data")
    form.get_by_label("Files").set_input_files(write(tmp_path / "data", {"wednesday": "1"}))
    form.locator("button").click()
    figure(operator, "Champion").get_by_text("version 4", exact=True).wait_for()

    # Whoever administers sees all of it.
    admin.goes("/audit")
    told = admin.text()
    for entry in ["token.create", "AppService/Register", "AppService/Command", "AppService/RollBackVersion"]:
        assert entry in told, f"{entry} is not in the audit log: {told}"
    assert "olga" in told
    admin.page.get_by_role("button", name="Sign out").click()
    admin.page.wait_for_url("**/sign-in")


def test_a_failing_run_is_found_understood_and_repeated(lively, visitor, tmp_path) -> None:
    service, _ = lively
    operator = visitor(service.url)
    manifest = {**SHOUT_FILES, "app.toml": SHOUT_FILES["app.toml"].replace('"shout"', '"echo"')}
    registers(operator, write(tmp_path / "echo", manifest), "echo")
    operator.page.get_by_role("button", name="Enable", exact=True).click()
    run = asks(operator, "echo", "3\n")
    # It is found on the page of runs, which tells by itself how it went.
    operator.goes("/runs")
    row = operator.page.get_by_role("row").filter(has=operator.page.get_by_role("link", name=run, exact=True))
    row.get_by_text("failed", exact=True).wait_for()
    row.get_by_role("link").click()
    assert "it was asked: 3" in operator.page.locator("pre.log").inner_text()
    operator.sees("ended with code 3")
    operator.page.get_by_role("button", name="Repeat").click()
    operator.sees("repeated as")
    assert operator.page.url.split("?")[0] != f"{service.url}/runs/{run}"
    assert f"Repeats {run}." in operator.text()
    figure(operator, "Status").get_by_text("failed", exact=True).wait_for()
    # Beside the one that it repeats nothing came of it that is new.
    operator.page.get_by_role("link", name="compare it with another run").click()
    operator.sees("The same came of both.")
    assert operator.page.get_by_label("Another run").input_value() == run
    row = operator.page.get_by_role("row").filter(has=operator.page.get_by_role("cell", name="exit code", exact=True))
    assert row.locator("td").all_inner_texts() == ["exit code", "3", "3", "no"]
    # Lines arrive as they were typed.
    run = asks(operator, "echo", "two\nlines")
    operator.goes(f"/runs/{run}")
    figure(operator, "Status").get_by_text("succeeded", exact=True).wait_for()
    with operator.page.expect_download() as download:
        operator.page.get_by_role("link", name="response").click()
    assert download.value.path().read_bytes() == b"TWO\nLINES"


def test_runs_are_found_by_what_they_read(lively, visitor) -> None:
    service, _ = lively
    looker = visitor(service.url)
    for path in ["/runs", "/archive"]:
        looker.goes(path)
        looker.page.keyboard.press("/")
        looker.page.keyboard.type("MONDAY")
        looker.page.keyboard.press("Enter")
        looker.page.wait_for_url("**q=MONDAY*")
        # Though no row of the list of runs says so.
        looker.page.get_by_role("link", name="learner.1", exact=True).first.wait_for()
        assert looker.page.get_by_role("link", name="shout.1", exact=True).count() == 0, path
    looker.goes("/runs?q=nothing-of-the-kind")
    looker.page.get_by_role("link", name="Show all").click()
    looker.page.get_by_role("link", name="shout.1", exact=True).wait_for()


def test_a_policy_is_seen_beside_the_baselines(lively, visitor) -> None:
    service, _ = lively
    looker = visitor(service.url)
    looker.goes("/policies")
    row = looker.page.get_by_role("row").filter(has_text="uploaded")
    row.get_by_role("link", name="beside the baselines").click()
    looker.page.get_by_role("heading", name="How uploaded was evaluated").wait_for()
    # A plot of each scenario, which says in words what it shows.
    plots = looker.page.locator("figure [role=img]")
    assert plots.count() == 3
    assert "uploaded at α = 0: " in plots.first.get_attribute("aria-label")
    looker.page.get_by_text("The plots as numbers").click()
    rows = looker.page.locator("#figures tbody tr")
    # Nine policies at five positions of the dial on three scenarios.
    assert rows.count() == 9 * 5 * 3
    assert rows.filter(has_text="this one").count() == 5 * 3


def test_a_policy_proves_itself_and_is_taken_back(guarded: Service, visitor) -> None:
    admin = visitor(guarded.url)
    admin.signs_in(guarded.token)

    def gives(policy: str, role: str, reason: str) -> None:
        row = admin.page.get_by_role("row").filter(has=admin.page.get_by_role("cell", name=policy, exact=True))
        form = admin.opens("Give a role", row)
        form.get_by_label("Role").select_option(role)
        form.get_by_label("Reason").fill(reason)
        form.locator("button").click()

    admin.goes("/policies")
    gives("random", "shadow", "what would chance do?")
    admin.sees("shadow is random")
    with guarded.client(guarded.token) as client:
        place(client, count=20)
    # It is compared while somebody looks.
    admin.sees("decided 20 times beside")
    gives("greedy-completion", "champion", "sooner is better here")
    admin.sees("champion is greedy-completion")
    with guarded.client(guarded.token) as client:
        decision = place(client)[0]
    admin.goes(f"/placements/urban-sensing/{decision}")
    assert "by greedy-completion" in admin.text()
    admin.goes("/policies")
    form = admin.opens("Roll back the champion")
    form.get_by_label("Reason").fill("it was not")
    form.locator("button").click()
    admin.sees("champion is greedy-marginal again")
    for reason in ["what would chance do?", "sooner is better here", "it was not"]:
        admin.sees(reason)
    admin.goes("/audit")
    wait("the audit log", lambda: admin.text().count("alias.set") == 3)


def test_a_decision_is_disputed(guarded: Service, visitor) -> None:
    admin = visitor(guarded.url)
    admin.signs_in(guarded.token)
    with guarded.client(guarded.token) as client:
        decision = place(client, count=2)[0]
    admin.goes(f"/placements/urban-sensing/{decision}")
    form = admin.opens("Dispute")
    form.get_by_label("Reason").fill("that board stands in the sun")
    form.locator("button").click()
    admin.sees(f"decision {decision} is disputed")
    admin.sees("that board stands in the sun")
    # It is one of two in the feed.
    admin.goes("/placements/urban-sensing")
    assert admin.page.get_by_text("disputed", exact=True).count() == 1
    admin.goes(f"/placements/urban-sensing/{decision}")
    form = admin.opens("Dispute no more")
    form.get_by_label("Reason").fill("it was in the shade")
    form.locator("button").click()
    admin.sees(f"decision {decision} is not disputed any more")
    # What was just done can be undone.
    admin.page.get_by_role("button", name="Undo").click()
    admin.sees(f"decision {decision} is disputed")
    admin.goes("/audit")
    wait("the audit log", lambda: admin.text().count("PlacementService/Dispute") == 3)


def test_a_viewer_sees_everything_and_changes_nothing(guarded: Service, visitor, tmp_path) -> None:
    admin = visitor(guarded.url)
    admin.signs_in(guarded.token)
    registers(admin, write(tmp_path / "fails", {"app.toml": FAILS}), "fails")
    viewer = visitor(guarded.url)
    viewer.signs_in(makes_token(admin, "vera", "viewer"))
    with guarded.client(guarded.token) as client:
        decision = place(client)[0]
    paths = [screen.path for screen in SCREENS if screen.code == 200] + ["/apps/fails"]
    for path in paths:
        if any(word in path for word in ("{run}", "{failed}", "{policy}")) or path == "/apps/learner":
            continue
        answer = viewer.goes(path.format(decision=decision))
        assert answer.status == (403 if path in ("/audit", "/access", "/settings") else 200), path
        offered = viewer.page.locator("form[method=post]").evaluate_all("all => all.map(one => one.action)")
        assert offered == [f"{guarded.url}/sign-out"], path
        assert viewer.page.get_by_role("link", name="Audit").count() == 0
    # A form that the page does not offer is refused all the same, and noted.
    forged = {"name": "fails", "command": "1", "csrf": ""}
    assert viewer.context.request.post("/act/AppService/Command", form=forged).status == 403
    admin.goes("/apps/fails")
    assert figure(admin, "State").inner_text() == "registered"
    admin.goes("/audit")
    row = admin.page.get_by_role("row").filter(has_text="vera").filter(has_text="AppService/Command")
    assert "refused" in row.first.inner_text()
