"""Every screen of the panel: a new one is a line here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Screen:
    """A page: its name, its path with `{run}`, `{failed}`, `{decision}` and `{policy}` of what fills the service, and what
    it shows."""

    name: str
    path: str
    shows: str
    #: What the page itself is answered with.
    code: int = 200

    def at(self, filled: dict[str, str]) -> str:
        return self.path.format(**filled)


SCREENS = [
    Screen("overview", "/", "Clusters"),
    Screen("cluster", "/clusters/urban-sensing", "Cluster urban-sensing"),
    Screen("links", "/clusters/urban-sensing/links", "Links of"),
    Screen("data", "/data", "urban-sensing"),
    Screen("data-of-a-cluster", "/data/urban-sensing", "Data of"),
    Screen("archive", "/archive", "learner"),
    Screen("applications", "/apps", "learner"),
    Screen("application", "/apps/learner", "What moved it"),
    Screen("set-aside", "/apps/fails", "quarantined"),
    Screen("runs", "/runs", "shout.1"),
    Screen("run", "/runs/{run}", "Read and written"),
    Screen("found-runs", "/runs?q=monday", "learner"),
    Screen("compared-runs", "/runs/{failed}/compare?with={run}", "What came of them"),
    Screen("failed-run", "/runs/{failed}", "there is no pump at this address"),
    Screen("placements", "/placements", "urban-sensing"),
    Screen("decisions", "/placements/urban-sensing", "the node lost power"),
    Screen("receipt", "/placements/urban-sensing/{decision}", "What was chosen from"),
    Screen("policies", "/policies", "greedy-marginal"),
    Screen("preview", "/policies/preview?policy=random", "Had it decided"),
    Screen("evaluation", "/policies/evaluation?policy={policy}", "The plots as numbers"),
    Screen("not-evaluated", "/policies/evaluation?policy=random", "A heuristic is what"),
    Screen("training", "/training", "Training"),
    Screen("triggers", "/triggers", "weekly"),
    Screen("audit", "/audit", "AppService/Register"),
    Screen("access", "/access", "without --auth"),
    Screen("settings", "/settings", "--data"),
    Screen("nowhere", "/nowhere", "That did not work", code=404),
]
