"""The Gymnasium environments against Gymnasium's own checker and against each other."""

import copy
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import remora_env
from remora_env import PlacementEnv, PlacementVectorEnv

WORKSHOP = Path(__file__).parent / "workshop.toml"


def play(env, policy, **reset):
    """Rewards and infos of one episode; `policy` takes the environment and gives an action."""
    _, info = env.reset(**reset)
    rewards, infos, ended = [], [info], False
    while not ended:
        _, reward, terminated, truncated, info = env.step(policy(env))
        ended = terminated or truncated
        rewards.append(reward)
        infos.append(info)
    return rewards, infos


def first(env):
    return 0


@pytest.mark.parametrize("scenario", [*remora_env.scenarios(), WORKSHOP])
def test_gymnasium_finds_nothing_to_complain_about(scenario):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("remora/Placement-v0", scenario=scenario, tasks=30, disable_env_checker=True)
        check_env(env.unwrapped)


def test_same_seed_same_episode_and_another_seed_another():
    env = PlacementEnv(WORKSHOP)
    once, again, other = (play(env, first, seed=seed)[0] for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_worlds_to_learn_on_are_not_those_of_evaluation():
    env = PlacementEnv(WORKSHOP)
    drawn = [env.reset(seed=seed)[1]["world"] for seed in range(20)]
    assert min(drawn) >= 1 << 33
    assert len(set(drawn)) == 20
    assert env.reset(options={"world": 7})[1]["world"] == 7


def test_rewards_sum_up_to_the_costs_of_the_tasks():
    alpha = 0.3
    env = PlacementEnv(WORKSHOP, alpha=alpha)
    rewards, _ = play(env, first, seed=0)
    seconds, moved = env.reference
    outcomes = env.outcomes()
    assert len(outcomes) == 40
    assert {outcome["end"] for outcome in outcomes} == {"completed"}
    costs = [
        alpha * outcome["moved_bytes"] / moved + (1 - alpha) * outcome["response_s"] / seconds
        for outcome in outcomes
    ]
    assert sum(rewards) == pytest.approx(-sum(costs), rel=1e-9)


def test_observation_has_a_row_per_candidate_and_only_those():
    env = PlacementEnv(WORKSHOP, shortlist=8)
    observation, info = env.reset(seed=0)
    assert observation.shape == (8, len(remora_env.feature_names()))
    assert info["action_mask"].sum() == 6
    assert observation[:6].any(axis=1).all()
    assert not observation[6:].any()
    task, nodes = env.waiting()
    assert task.startswith("detect")
    assert sorted(nodes) == ["fast-0", "fast-1", "slow-0", "slow-1", "slow-2", "slow-3"]


def test_empty_row_falls_back_to_the_cheapest_and_says_so():
    env = PlacementEnv(WORKSHOP, shortlist=8)
    greedy, infos = play(env, lambda env: env.heuristic("greedy-marginal"), seed=1)
    assert not any(info["invalid_action"] for info in infos[1:])
    fallback, infos = play(env, lambda env: 7, seed=1)
    assert all(info["invalid_action"] for info in infos[1:])
    assert fallback == greedy


def test_restored_episode_goes_on_as_the_first_did():
    env = PlacementEnv(WORKSHOP)
    env.reset(seed=5)
    for _ in range(10):
        env.step(0)
    snapshot = env.snapshot()
    onwards = [env.step(0)[:4] for _ in range(20)]
    for attempt in range(2):
        env.restore(snapshot)
        again = [env.step(0)[:4] for _ in range(20)]
        for (seen, *facts), (seen_again, *facts_again) in zip(onwards, again):
            np.testing.assert_array_equal(seen, seen_again)
            assert facts == facts_again


def test_limit_truncates_and_does_not_terminate():
    env = PlacementEnv(WORKSHOP, limit=5)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)


def test_vector_steps_as_single_environments_would():
    settings = {"scenario": WORKSHOP, "tasks": 12, "alpha": 0.7}
    vector = PlacementVectorEnv(num_envs=3, **settings)
    singles = [PlacementEnv(**settings) for _ in range(3)]
    seen, infos = vector.reset(seed=10)
    for index, single in enumerate(singles):
        np.testing.assert_array_equal(seen[index], single.reset(seed=10 + index)[0])
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(40):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in infos["action_mask"]])
        seen, rewards, terminated, truncated, infos = vector.step(actions)
        for index, single in enumerate(singles):
            now, reward, terminated_now, truncated_now, _ = single.step(actions[index])
            assert (rewards[index], terminated[index], truncated[index]) == (reward, terminated_now, truncated_now)
            if terminated_now:
                ends += 1
                np.testing.assert_array_equal(infos["final_obs"][index], now)
                assert infos["final_info"]["outcomes"][index] == single.outcomes()
                now, _ = single.reset()
            np.testing.assert_array_equal(seen[index], now)
    assert ends == 9


def test_made_by_gymnasium_it_is_a_vector_of_the_same_kind():
    vector = gymnasium.make_vec("remora/Placement-v0", num_envs=2, scenario=WORKSHOP)
    assert isinstance(vector.unwrapped, PlacementVectorEnv)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"alpha": 1.5}, "alpha is 1.5, want 0 to 1"),
        ({"shortlist": 0}, "shortlist is 0, want 1 to 4096"),
        ({"tasks": 0}, "tasks is 0, want at least 1"),
        ({"limit": 0}, "limit is 0, want at least 1"),
        ({"scenario": "urban-sensin"}, 'did you mean "urban-sensing"'),
        ({"reference": (0.0, 1.0)}, r"reference\[0\] is 0, want a number above 0"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, problem):
    with pytest.raises(ValueError, match=problem):
        PlacementEnv(**settings)


def test_bad_calls_are_refused_by_name():
    env = PlacementEnv(WORKSHOP)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(ValueError, match="unknown key 'wrld'"):
        env.reset(options={"wrld": 1})
    with pytest.raises(ValueError, match="world is -1"):
        env.reset(options={"world": -1})
    env.reset(seed=0)
    for action in (-1, 16):
        with pytest.raises(ValueError, match=f"action is {action}, want 0 to 15"):
            env.step(action)
    with pytest.raises(ValueError, match="no policy is called"):
        env.heuristic("greedy")


def test_a_deep_copy_looks_ahead_without_touching_the_original():
    env = PlacementEnv(WORKSHOP)
    env.reset(seed=0)
    env.step(0)
    ahead = copy.deepcopy(env)
    there = [ahead.step(1)[1] for _ in range(10)]
    assert len(env.outcomes()) == 0
    assert [env.step(1)[1] for _ in range(10)] == there
