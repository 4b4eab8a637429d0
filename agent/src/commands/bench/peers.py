"""What PyTorch and Stable-Baselines3 make of the same network, batch and simulator; a JSON object on stdout."""

import json
import math
import sys
import time

features, hidden, shortlist, batch, epochs, seconds, minutes = (int(argument) for argument in sys.argv[1:8])
rows = {}

try:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(features, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, 1),
    )
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-5)
    x = torch.rand(batch, shortlist, features)
    mask = torch.ones(batch, shortlist)
    actions = torch.randint(shortlist, (batch, 1))
    old, advantages = torch.full((batch,), -2.77), torch.randn(batch)

    def step():
        log_probs = torch.log_softmax(network(x).squeeze(-1) + (mask - 1) * 1e9, 1)
        log_ratio = log_probs.gather(1, actions).squeeze(1) - old
        ratio = log_ratio.exp()
        gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        entropy = -(log_probs.exp() * log_probs * mask).sum(1).mean()
        adam.zero_grad()
        (-gain - 0.003 * entropy).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        adam.step()

    for _ in range(20):
        step()
    started, steps = time.process_time(), 0
    while time.process_time() - started < seconds:
        step()
        steps += 1
    rows["pytorch"] = steps * batch / (time.process_time() - started)
except ImportError as error:
    rows["pytorch_missing"] = str(error)

try:
    from remora_env import PlacementEnv
    from sb3_contrib import MaskablePPO

    env = PlacementEnv("urban-sensing", alpha=0.5)

    def untrained():
        return MaskablePPO("MlpPolicy", env, n_steps=1024, batch_size=batch, n_epochs=epochs, device="cpu", seed=0)

    model = untrained()
    started = time.perf_counter()
    model.learn(4096)
    rows["sb3"] = 4096 / (time.perf_counter() - started)

    held_out = PlacementEnv("urban-sensing", alpha=0.5)

    def costs(policy):
        """Of ten episodes."""
        for world in range(10):
            seen, info = held_out.reset(options={"world": world})
            cost, ended = 0.0, False
            while not ended:
                seen, reward, terminated, truncated, info = held_out.step(policy(seen, info["action_mask"]))
                cost, ended = cost - reward, terminated or truncated
            yield cost

    def learnt(seen, mask):
        return int(model.predict(seen, action_masks=mask, deterministic=True)[0])

    # The least cost over greedy's, and the CPU time of learning until then.
    greedy = list(costs(lambda *_: held_out.heuristic("greedy-marginal")))
    model = untrained()
    spent = 0.0
    while spent < 60 * minutes:
        started = time.process_time()
        model.learn(8192, reset_num_timesteps=False)
        spent += time.process_time() - started
        ratios = [math.log(ours / its) for ours, its in zip(costs(learnt), greedy)]
        cost = math.exp(sum(ratios) / len(ratios))
        print(f"{spent:.0f} s: {cost:.3f}", file=sys.stderr)
        if cost < rows.get("sb3_cost", math.inf):
            rows["sb3_cost"], rows["sb3_cpu_s"] = cost, spent
except ImportError as error:
    rows["sb3_missing"] = str(error)

print(json.dumps(rows))
