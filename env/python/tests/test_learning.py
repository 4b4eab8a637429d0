"""An agent of Stable-Baselines3 learns on the environment."""

from pathlib import Path

import numpy as np
from sb3_contrib import MaskablePPO

from remora_env import PlacementEnv

WORKSHOP = Path(__file__).parent / "workshop.toml"


def cost(env, policy):
    """Mean cost of ten held-out episodes."""
    total = 0.0
    for world in range(10):
        observation, info = env.reset(options={"world": world})
        ended = False
        while not ended:
            action = policy(observation, info["action_mask"])
            observation, reward, terminated, truncated, info = env.step(action)
            total -= reward
            ended = terminated or truncated
    return total / 10


def test_maskable_ppo_learns():
    env = PlacementEnv(WORKSHOP, alpha=0.5, shortlist=6)
    rng = np.random.default_rng(0)
    random = cost(env, lambda _, mask: rng.choice(np.flatnonzero(mask)))
    greedy = cost(env, lambda *_: env.heuristic("greedy-marginal"))
    model = MaskablePPO("MlpPolicy", env, n_steps=512, batch_size=128, learning_rate=1e-3, seed=0, device="cpu")
    model.learn(15_000)
    learned = cost(env, lambda seen, mask: int(model.predict(seen, action_masks=mask, deterministic=True)[0]))
    print(f"cost of an episode: random {random:.1f}, learned {learned:.1f}, greedy {greedy:.1f}")
    # Most of the way from a random policy to a strong heuristic.
    assert learned < random - 0.7 * (random - greedy)
