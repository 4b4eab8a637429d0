"""One episode at a time: each step places one task on a node of an edge cluster."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from remora_env._native import Episode, Scenario, feature_names

# Worlds that agents learn on start here; small seeds are held out for evaluation.
TRAINING_WORLDS = 1 << 33
# Features are shares, flags and natural logarithms of 64-bit floats, which stay below 710.
FEATURE_LIMIT = 1000.0


def observation_space(shortlist: int) -> spaces.Box:
    """One row per candidate, one column per feature; rows without a candidate are zero."""
    return spaces.Box(0.0, FEATURE_LIMIT, (shortlist, len(feature_names())), np.float32)


def world_of(rng: np.random.Generator, options: dict[str, Any] | None) -> int:
    """The world that `options` asks for, or one that `rng` draws to learn on."""
    options = options or {}
    unknown = sorted(set(options) - {"world"})
    if unknown:
        raise ValueError(f"options: unknown key {unknown[0]!r}, known is 'world'")
    if "world" not in options:
        return TRAINING_WORLDS + int(rng.integers(1 << 32))
    world = options["world"]
    if isinstance(world, bool) or not isinstance(world, (int, np.integer)) or not 0 <= world < 1 << 64:
        raise ValueError(f"options: world is {world!r}, want a whole number from 0 to 2**64 - 1")
    return int(world)


class PlacementEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Places the tasks of a scenario, one per step; of a family, every world is another member.

    - Observation: `[shortlist, features]`, a row per candidate node, in the order of
      `remora_env.feature_names()`. The rows are the candidates that look best by several cheap
      criteria; where fewer nodes can run the task, the last rows are zero.
    - Action: the position of a row. `info["action_mask"]` and `action_masks()` say which rows hold
      a candidate. An action on an empty row places the task where it is expected to cost least, and
      `info["invalid_action"]` is true: mask, or punish it as you like.
    - Reward: minus the cost that arose since the last step, `alpha` · bytes / D₀ + (1 − `alpha`) ·
      task-seconds / R₀, where R₀ and D₀ (`reference`) are what a task takes and moves under the
      Kubernetes default scheduler. Over a whole episode they sum up to minus the costs of all tasks.
    - End: terminated when every task has its outcome, truncated after `limit` steps.

    `reset(seed=n)` seeds the draw of worlds to learn on; `reset(options={"world": n})` plays exactly
    the world that `remora evaluate` plays under seed n.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        scenario: str | os.PathLike[str] = "urban-sensing",
        *,
        alpha: float = 0.5,
        tasks: int | None = None,
        shortlist: int = 16,
        limit: int | None = None,
        reference: tuple[float, float] | None = None,
    ) -> None:
        self._scenario = Scenario(os.fspath(scenario), tasks, reference)
        self._settings = (float(alpha), shortlist, limit)
        # Refuses bad settings here rather than at the first reset.
        self._scenario.start(0, *self._settings)
        self._episode: Episode | None = None
        self.observation_space = observation_space(shortlist)
        self.action_space = spaces.Discrete(shortlist)

    @property
    def reference(self) -> tuple[float, float]:
        """R₀ in seconds and D₀ in price-weighted bytes, per task, in the present world."""
        return self._running.reference

    @property
    def _running(self) -> Episode:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset() first")
        return self._episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        world = world_of(self.np_random, options)
        self._episode = self._scenario.start(world, *self._settings)
        return self._episode.observation(), {"world": world, **self._info()}

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"action is {action}, want 0 to {self.action_space.n - 1}")
        episode = self._running
        reward, invalid = episode.step(int(action))
        terminated, truncated = episode.ended()
        return episode.observation(), reward, terminated, truncated, {"invalid_action": invalid, **self._info()}

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks(), "now_s": self._running.now_s()}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which rows hold a candidate, as `sb3_contrib.MaskablePPO` asks for it."""
        return self._running.mask()

    def heuristic(self, name: str) -> int:
        """The action that a built-in heuristic would take now, such as `"greedy-marginal"`."""
        return self._running.heuristic(name)

    def waiting(self) -> tuple[str | None, list[str]]:
        """The task that waits, and the node behind each action."""
        return self._running.waiting()

    def outcomes(self) -> list[dict[str, Any]]:
        """What became of the tasks that have ended, in order of completion."""
        return self._running.outcomes()

    def snapshot(self) -> Episode:
        """The state of the episode, to be given to `restore` of any environment with these settings."""
        return self._running.copy()

    def restore(self, snapshot: Episode) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Goes on from a snapshot; the snapshot stays as it is."""
        self._episode = snapshot.copy()
        return self._episode.observation(), self._info()
