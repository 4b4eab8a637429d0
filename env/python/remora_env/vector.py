"""Many episodes side by side, stepped over the threads of the machine."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from remora_env._native import Episode, Scenario, observe_all, step_all
from remora_env.env import observation_space, world_of

Observations = NDArray[np.float32]


class PlacementVectorEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[np.float64]]):
    """`num_envs` times `PlacementEnv`, far faster than as many processes.

    Reset is automatic within the step that ends an episode (`AutoresetMode.SAME_STEP`): the
    observation is the next episode's first, and the ended one's last is in
    `infos["final_obs"]`. Environment i draws its worlds from its own generator, seeded as
    `PlacementEnv.reset(seed=seed + i)` would.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        scenario: str | os.PathLike[str] = "urban-sensing",
        num_envs: int = 1,
        *,
        alpha: float = 0.5,
        tasks: int | None = None,
        shortlist: int = 16,
        limit: int | None = None,
        reference: tuple[float, float] | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}, want at least 1")
        self._scenario = Scenario(os.fspath(scenario), tasks, reference)
        self._settings = (float(alpha), shortlist, limit)
        self._scenario.start(0, *self._settings)
        self._episodes: list[Episode] = []
        self._generators = [np.random.default_rng() for _ in range(num_envs)]
        self.num_envs = num_envs
        self.single_observation_space = observation_space(shortlist)
        self.single_action_space = spaces.Discrete(shortlist)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        seeds = self._seeds(seed)
        for index, given in enumerate(seeds):
            if given is not None:
                self._generators[index], _ = gymnasium.utils.seeding.np_random(given)
        worlds = [world_of(generator, options) for generator in self._generators]
        self._episodes = [self._scenario.start(world, *self._settings) for world in worlds]
        return observe_all(self._episodes), {"world": np.array(worlds, np.uint64), "action_mask": self._masks()}

    def _seeds(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed has {len(seed)} entries, want {self.num_envs}")
        return list(seed)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observations, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        if not self._episodes:
            raise gymnasium.error.ResetNeeded("call reset() first")
        if not self.action_space.contains(np.asarray(actions, np.int64)):
            want = f"{self.num_envs} numbers from 0 to {self.single_action_space.n - 1}"
            raise ValueError(f"actions is {actions}, want {want}")
        stepped = step_all(self._episodes, [int(action) for action in actions])
        rewards = np.array([reward for reward, _ in stepped])
        infos: dict[str, Any] = {"invalid_action": np.array([invalid for _, invalid in stepped])}
        terminated, truncated = np.array([episode.ended() for episode in self._episodes]).T
        self._reset_ended(terminated | truncated, infos)
        infos["action_mask"] = self._masks()
        return observe_all(self._episodes), rewards, terminated, truncated, infos

    def _reset_ended(self, ended: NDArray[np.bool_], infos: dict[str, Any]) -> None:
        if not ended.any():
            return
        final_obs = np.full(self.num_envs, None, dtype=object)
        outcomes = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(ended):
            final_obs[index] = self._episodes[index].observation()
            outcomes[index] = self._episodes[index].outcomes()
            world = world_of(self._generators[index], None)
            self._episodes[index] = self._scenario.start(world, *self._settings)
        infos |= {"final_obs": final_obs, "_final_obs": ended}
        infos |= {"final_info": {"outcomes": outcomes, "_outcomes": ended}, "_final_info": ended}

    def _masks(self) -> NDArray[np.bool_]:
        return np.array([episode.mask() for episode in self._episodes])

    def action_masks(self) -> NDArray[np.bool_]:
        """Which rows hold a candidate: `[num_envs, shortlist]`."""
        return self._masks()
