//! Where to bring what, at the least cost: a facility location problem, solved by constraint programming.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use pumpkin_conflict_resolvers::resolvers::ResolutionResolver;
use pumpkin_constraints::less_than_or_equals;
use pumpkin_core::constraints::Constraint;
use pumpkin_core::optimisation::OptimisationDirection;
use pumpkin_core::optimisation::linear_sat_unsat::LinearSatUnsat;
use pumpkin_core::predicate;
use pumpkin_core::results::{OptimisationResult, ProblemSolution, SolutionReference};
use pumpkin_core::termination::TimeBudget;
use pumpkin_core::variables::TransformableVariable;
use pumpkin_core::{DefaultBrancher, Solver};
use remora_env::World;
use remora_env::cluster::Item;
use remora_env::observation::Reference;
use remora_env::topology::NodeId;

use super::{least, to_bring};

/// The sum of all costs in the solver's whole numbers.
const WHOLE: f64 = 1e8;

/// The least cost per task of a schedule in which tasks never wait for each other: no schedule of the world
/// costs less. `None` where peers serve each other, or the solver does not finish in `budget`.
pub fn relaxation(world: &World, alpha: f64, reference: Reference, budget: Duration) -> Option<f64> {
    if world.topology.peers {
        return None;
    }
    let instance = Instance::new(world, alpha, reference);
    let scale = WHOLE / instance.greatest().max(1e-9);
    Some(instance.solve(scale, budget)? / scale / world.tasks.len().max(1) as f64)
}

struct Instance {
    /// For each task what it costs on each node where it can run.
    tasks: Vec<Vec<(NodeId, f64)>>,
    /// What it costs to bring each item to each node.
    items: Vec<f64>,
    /// For each task and each of its nodes which items are brought.
    needs: Vec<Vec<Vec<usize>>>,
}

impl Instance {
    fn new(world: &World, alpha: f64, reference: Reference) -> Instance {
        let cluster = world.initial_cluster();
        let mut numbers: BTreeMap<(NodeId, Item), usize> = BTreeMap::new();
        let mut instance = Instance { tasks: Vec::new(), items: Vec::new(), needs: Vec::new() };
        for task in 0..world.tasks.len() as u32 {
            let (mut costs, mut needs) = (Vec::new(), Vec::new());
            for node in 0..world.topology.nodes.len() as NodeId {
                let Some(alone) = least(world, &cluster, task, node) else { continue };
                costs.push((node, reference.cost(alpha, alone.moved_bytes, alone.seconds)));
                let mut brought = Vec::new();
                for (item, least) in to_bring(world, &cluster, task, node) {
                    let number = *numbers.entry((node, item)).or_insert_with(|| {
                        instance.items.push(reference.cost(alpha, least.moved_bytes, least.seconds));
                        instance.items.len() - 1
                    });
                    brought.push(number);
                }
                needs.push(brought);
            }
            instance.tasks.push(costs);
            instance.needs.push(needs);
        }
        instance
    }

    /// No solution costs more.
    fn greatest(&self) -> f64 {
        let dearest = |costs: &Vec<(NodeId, f64)>| costs.iter().map(|(_, cost)| *cost).fold(0.0, f64::max);
        self.tasks.iter().map(dearest).sum::<f64>() + self.items.iter().sum::<f64>()
    }

    fn solve(&self, scale: f64, budget: Duration) -> Option<f64> {
        // Rounded down, so that the bound stays below.
        let whole = |cost: f64| (cost * scale) as i32;
        let mut solver = Solver::default();
        let tag = solver.new_constraint_tag();
        let total = solver.new_bounded_integer(0, WHOLE as i32);
        let items: Vec<_> = self.items.iter().map(|_| solver.new_bounded_integer(0, 1)).collect();
        // The solver takes no term without weight.
        let mut terms: Vec<_> = items
            .iter()
            .zip(&self.items)
            .filter(|(_, cost)| whole(**cost) > 0)
            .map(|(item, cost)| item.scaled(whole(*cost)))
            .collect();
        for (costs, needs) in self.tasks.iter().zip(&self.needs) {
            let on: Vec<_> = costs.iter().map(|_| solver.new_bounded_integer(0, 1)).collect();
            let somewhere: Vec<_> = on.iter().map(|&on| predicate![on >= 1]).collect();
            solver.add_clause(somewhere, tag);
            for ((&on, (_, cost)), needs) in on.iter().zip(costs).zip(needs) {
                if whole(*cost) > 0 {
                    terms.push(on.scaled(whole(*cost)));
                }
                for &item in needs {
                    let item = items[item];
                    solver.add_clause([predicate![on <= 0], predicate![item >= 1]], tag);
                }
            }
        }
        terms.push(total.scaled(-1));
        less_than_or_equals(terms, 0, tag).post(&mut solver);
        let mut brancher = solver.default_brancher();
        let mut resolver = ResolutionResolver::default();
        let go_on = |_: &Solver, _: SolutionReference<'_>, _: &DefaultBrancher, _: &ResolutionResolver| {
            ControlFlow::<()>::Continue(())
        };
        let procedure = LinearSatUnsat::new(OptimisationDirection::Minimise, total, go_on);
        let mut limit = TimeBudget::starting_now(budget);
        match solver.optimise(&mut brancher, &mut limit, &mut resolver, procedure) {
            OptimisationResult::Optimal(solution) => Some(f64::from(solution.get_integer_value(total))),
            _ => None,
        }
    }
}
