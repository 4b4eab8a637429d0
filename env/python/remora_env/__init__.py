"""Placing AI tasks on edge clusters, as a Gymnasium environment over Remora's simulator."""

import gymnasium

from remora_env._native import feature_names, scenarios
from remora_env.env import PlacementEnv
from remora_env.vector import PlacementVectorEnv

__all__ = ["PlacementEnv", "PlacementVectorEnv", "feature_names", "scenarios"]

gymnasium.register(
    id="remora/Placement-v0",
    entry_point="remora_env.env:PlacementEnv",
    vector_entry_point="remora_env.vector:PlacementVectorEnv",
)
