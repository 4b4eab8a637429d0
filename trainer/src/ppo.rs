//! Proximal policy optimisation (Schulman et al. 2017), read top to bottom: collect, then a few
//! epochs of minibatches with a clipped ratio and an entropy bonus.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;

use crate::collect::Experience;
use crate::config::Baseline;
use crate::learner::{BadBatch, Learner, Loss, Metrics, SHOWN, column, log_probs_and_entropy, positions};

impl Learner {
    /// Learns from what its own choices led to.
    pub(crate) fn improve(&mut self, progress: f64) -> Result<Metrics, BadBatch> {
        let (clip, value_weight) = (self.config.clip as f32, self.config.value_weight);
        let (_, entropy_weight) = self.schedule(progress);
        let (size, critic) = (self.config.network.shortlist, self.config.baseline == Baseline::Critic);
        self.learn(progress, self.config.target_kl, &|experience| {
            Box::new(move |network, device, rows| {
                let (features, mask) = experience.inputs(rows).into_tensors(size, device);
                let actions = positions(&experience.actions, rows, device); // [rows, 1]
                let old = column(&experience.log_probs, rows, device); // [rows]
                let advantages = column(&experience.advantages, rows, device); // [rows]
                let logits = network.logits(features.clone(), mask.clone());
                let (log_probs, entropy) = log_probs_and_entropy(logits, mask.clone());
                let chosen = log_probs.gather(1, actions).reshape([rows.len()]); // [rows]
                let log_ratio = chosen - old; // [rows]
                let ratio = log_ratio.clone().exp(); // [rows]
                let clipped = ratio.clone().clamp(1.0 - clip, 1.0 + clip); // [rows]
                let gain = (ratio.clone() * advantages.clone()).min_pair(clipped * advantages); // [rows]
                let policy_loss = -gain.mean();
                let value_loss = if critic {
                    let targets = column(&experience.targets, rows, device); // [rows]
                    (network.value(features, mask) - targets).powi_scalar(2).mean() * 0.5
                } else {
                    Tensor::zeros([1], device)
                };
                let loss = policy_loss.clone() + value_loss.clone() * value_weight
                    - entropy.clone() * entropy_weight;
                let kl = (ratio.clone() - 1.0 - log_ratio).mean();
                let outside = (ratio - 1.0).abs().greater_elem(clip).float().mean();
                (loss, [policy_loss, value_loss, entropy, kl, outside])
            })
        })
    }

    /// Takes gradient steps on the loss that `loss` makes of the next experience, until the policy has
    /// changed by `target_kl`. Meanwhile the experience after it is collected, with the policy as it was,
    /// except before a checkpoint: a resumed run begins there and has to see the same.
    fn learn(
        &mut self,
        progress: f64,
        target_kl: f64,
        loss: &(dyn Fn(&Experience) -> Box<Loss<'_, 5>> + Sync),
    ) -> Result<Metrics, BadBatch> {
        let started = Instant::now();
        let collected = self.ahead.take();
        let experience = collected.unwrap_or_else(|| self.worlds(self.iteration).collect());
        let collect_s = started.elapsed().as_secs_f64();
        let next = self.iteration + 1;
        let ahead = (!next.is_multiple_of(self.config.validate_every)).then(|| self.worlds(next));
        let threads = Arc::clone(&self.threads);
        let update = || self.update(&experience, progress, target_kl, &*loss(&experience));
        let (metrics, ahead) = rayon::join(
            || threads.descending.install(update),
            || threads.playing.install(|| ahead.map(|worlds| worlds.collect())),
        );
        self.ahead = ahead;
        let mut metrics = metrics?;
        metrics.collect_s = collect_s;
        metrics.update_s = started.elapsed().as_secs_f64() - collect_s;
        let shown: Vec<usize> = (0..experience.len().min(SHOWN)).collect();
        metrics.seen = experience.inputs(&shown);
        metrics.probabilities = experience.log_probs.iter().map(|log_prob| log_prob.exp()).collect();
        Ok(metrics)
    }

    fn update(
        &mut self,
        experience: &Experience,
        progress: f64,
        target_kl: f64,
        loss: &Loss<'_, 5>,
    ) -> Result<Metrics, BadBatch> {
        let (rate, _) = self.schedule(progress);
        let mut sums = [0.0; 5];
        let mut steps = 0.0;
        let mut metrics = Metrics {
            relative_cost: mean(&experience.relative_costs),
            decisions: experience.len(),
            ..Metrics::default()
        };
        for epoch in 0..self.config.epochs {
            let order = self.shuffled(experience.len(), epoch);
            let (mut kl, mut minibatches) = (0.0, 0.0);
            for rows in order.chunks(self.config.minibatch) {
                let bad = || BadBatch { inputs: experience.inputs(rows), rows: rows.to_vec() };
                let (figures, norm) = self.descend(rows, rate, loss).ok_or_else(bad)?;
                sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
                kl += figures[3];
                minibatches += 1.0;
                metrics.gradient_norm += norm;
                metrics.gradient_samples += rows.len();
            }
            steps += minibatches;
            metrics.kl = kl / f64::max(minibatches, 1.0);
            if metrics.kl > target_kl {
                break;
            }
        }
        let steps = f64::max(steps, 1.0);
        let [policy_loss, value_loss, entropy, _, outside] = sums.map(|sum| sum / steps);
        (metrics.policy_loss, metrics.entropy, metrics.clip_fraction) = (policy_loss, entropy, outside);
        metrics.gradient_norm /= steps;
        if self.config.baseline == Baseline::Critic {
            metrics.value_loss = Some(value_loss);
            let unexplained = 2.0 * value_loss / variance(&experience.targets).max(1e-9);
            metrics.explained_variance = Some(1.0 - unexplained);
        }
        Ok(metrics)
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64
}

fn variance(values: &[f32]) -> f64 {
    let mean = mean(values);
    values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64
}
