//! The exact optimum, by constraint programming with clause learning (Pumpkin, TU Delft).

use std::ops::ControlFlow;
use std::time::Duration;

use pumpkin_conflict_resolvers::resolvers::ResolutionResolver;
use pumpkin_constraints::less_than_or_equals;
use pumpkin_core::constraints::Constraint;
use pumpkin_core::optimisation::OptimisationDirection;
use pumpkin_core::optimisation::linear_sat_unsat::LinearSatUnsat;
use pumpkin_core::predicates::PredicateConstructor;
use pumpkin_core::proof::ConstraintTag;
use pumpkin_core::results::{OptimisationResult, ProblemSolution, Solution, SolutionReference};
use pumpkin_core::termination::TimeBudget;
use pumpkin_core::variables::{DomainId, Literal, TransformableVariable};
use pumpkin_core::{DefaultBrancher, Solver};

use super::{Edge, Job, Schedule, min_list_one_node, pairs};

/// The best schedule found, and whether it is proved that there is no better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Optimum {
    pub schedule: Schedule,
    pub proved: bool,
}

/// Searches for the least makespan, for at most `budget`.
pub fn optimum(job: &Job, machines: usize, budget: Duration) -> Optimum {
    let known = min_list_one_node(job, machines);
    let makespan = known.makespan(job);
    if makespan <= job.lower_bound(machines) {
        return Optimum { schedule: known, proved: true };
    }
    // Anything better than what is known.
    let mut model = Model::new(job, machines, makespan - 1);
    let mut brancher = model.solver.default_brancher();
    let mut resolver = ResolutionResolver::default();
    let go_on = |_: &Solver, _: SolutionReference<'_>, _: &DefaultBrancher, _: &ResolutionResolver| {
        ControlFlow::<()>::Continue(())
    };
    let procedure = LinearSatUnsat::new(OptimisationDirection::Minimise, model.makespan, go_on);
    let mut limit = TimeBudget::starting_now(budget);
    let result = model.solver.optimise(&mut brancher, &mut limit, &mut resolver, procedure);
    match result {
        OptimisationResult::Optimal(solution) => {
            Optimum { schedule: model.schedule(job, &solution), proved: true }
        }
        OptimisationResult::Satisfiable(solution) | OptimisationResult::Stopped(solution, ()) => {
            Optimum { schedule: model.schedule(job, &solution), proved: false }
        }
        OptimisationResult::Unsatisfiable => Optimum { schedule: known, proved: true },
        OptimisationResult::Unknown => Optimum { schedule: known, proved: false },
    }
}

struct Model {
    solver: Solver,
    tag: ConstraintTag,
    /// Machine and start of each task, start of each transfer.
    machines: Vec<DomainId>,
    starts: Vec<DomainId>,
    transfers: Vec<DomainId>,
    /// Whether the two ends of each edge are on one machine.
    local: Vec<Literal>,
    makespan: DomainId,
}

impl Model {
    /// All schedules of at most `horizon` slots.
    fn new(job: &Job, machines: usize, horizon: u32) -> Model {
        let mut solver = Solver::default();
        let tag = solver.new_constraint_tag();
        let horizon = horizon as i32;
        // Machines are alike: task i may be on one of the first i + 1.
        let on =
            (0..job.tasks.len()).map(|task| solver.new_bounded_integer(0, task.min(machines - 1) as i32));
        let on: Vec<DomainId> = on.collect();
        let starts = (0..job.tasks.len()).map(|_| solver.new_bounded_integer(0, horizon)).collect();
        let transfers = job.edges.iter().map(|_| solver.new_bounded_integer(0, horizon)).collect();
        let makespan = solver.new_bounded_integer(job.lower_bound(machines) as i32, horizon);
        let mut model = Model { solver, tag, machines: on, starts, transfers, local: Vec::new(), makespan };
        for (task, &time) in job.tasks.iter().enumerate() {
            let end = model.makespan;
            model.before(model.starts[task], time, end, None);
        }
        for (index, edge) in job.edges.iter().enumerate() {
            model.edge(job, index, edge, machines);
        }
        model.tasks_take_turns(job, machines);
        model.transfers_take_turns(job);
        model
    }

    /// `first + time ≤ second`, always or where a literal holds.
    fn before(&mut self, first: DomainId, time: u32, second: DomainId, only_if: Option<Literal>) {
        let terms = vec![first.scaled(1), second.scaled(-1)];
        let constraint = less_than_or_equals(terms, -(time as i32), self.tag);
        match only_if {
            None => constraint.post(&mut self.solver),
            Some(literal) => constraint.implied_by(&mut self.solver, literal),
        }
    }

    /// A literal that says whether two tasks are on one machine.
    fn same_machine(&mut self, a: usize, b: usize, machines: usize) -> Literal {
        let same = self.solver.new_literal();
        let (yes, no) = (same.get_true_predicate(), same.get_false_predicate());
        let (a, b) = (self.machines[a], self.machines[b]);
        for machine in 0..machines as i32 {
            let (on, off) = (
                |task: DomainId| task.equality_predicate(machine),
                |task: DomainId| task.disequality_predicate(machine),
            );
            self.solver.add_clause([no, off(a), on(b)], self.tag);
            self.solver.add_clause([no, off(b), on(a)], self.tag);
            self.solver.add_clause([yes, off(a), off(b)], self.tag);
        }
        same
    }

    /// Constraints (3) and (4): on one machine after a local delay, else over the channel.
    fn edge(&mut self, job: &Job, index: usize, edge: &Edge, machines: usize) {
        let local = self.same_machine(edge.from, edge.to, machines);
        self.local.push(local);
        let (from, to, transfer) = (self.starts[edge.from], self.starts[edge.to], self.transfers[index]);
        let time = job.tasks[edge.from];
        self.before(from, time + edge.local.min(edge.transfer), to, None);
        self.before(from, time + edge.local, to, Some(local));
        self.before(from, time, transfer, None);
        self.before(transfer, edge.transfer, to, Some(!local));
    }

    /// Constraint (2): no two tasks at a time on one machine, where the graph does not order them.
    fn tasks_take_turns(&mut self, job: &Job, machines: usize) {
        let ordered = reachable(job);
        for (a, b) in pairs(job.tasks.len()).filter(|&(a, b)| !ordered[a][b]) {
            let same = self.same_machine(a, b, machines);
            let (first, second) = (self.solver.new_literal(), self.solver.new_literal());
            self.before(self.starts[a], job.tasks[a], self.starts[b], Some(first));
            self.before(self.starts[b], job.tasks[b], self.starts[a], Some(second));
            let either =
                [same.get_false_predicate(), first.get_true_predicate(), second.get_true_predicate()];
            self.solver.add_clause(either, self.tag);
        }
    }

    /// Constraint (5): no two transfers at a time on the channel.
    fn transfers_take_turns(&mut self, job: &Job) {
        let ordered = reachable(job);
        for (a, b) in pairs(job.edges.len()) {
            let (of_a, of_b) = (&job.edges[a], &job.edges[b]);
            let after =
                |first: &Edge, second: &Edge| first.to == second.from || ordered[first.to][second.from];
            if after(of_a, of_b) || after(of_b, of_a) {
                continue;
            }
            let (first, second) = (self.solver.new_literal(), self.solver.new_literal());
            self.before(self.transfers[a], of_a.transfer, self.transfers[b], Some(first));
            self.before(self.transfers[b], of_b.transfer, self.transfers[a], Some(second));
            let either = [
                self.local[a].get_true_predicate(),
                self.local[b].get_true_predicate(),
                first.get_true_predicate(),
                second.get_true_predicate(),
            ];
            self.solver.add_clause(either, self.tag);
        }
    }

    fn schedule(&self, job: &Job, solution: &Solution) -> Schedule {
        let value = |variable: &DomainId| solution.get_integer_value(*variable);
        let machines: Vec<usize> = self.machines.iter().map(|machine| value(machine) as usize).collect();
        let remote = |edge: &Edge| machines[edge.from] != machines[edge.to];
        let transfers = job.edges.iter().zip(&self.transfers);
        let transfers = transfers.map(|(edge, begin)| remote(edge).then(|| value(begin) as u32)).collect();
        let starts = self.starts.iter().map(|start| value(start) as u32).collect();
        Schedule { machines, starts, transfers }
    }
}

/// For each pair whether the graph leads from the first to the second.
fn reachable(job: &Job) -> Vec<Vec<bool>> {
    let count = job.tasks.len();
    let mut reachable = vec![vec![false; count]; count];
    for from in (0..count).rev() {
        for edge in job.edges.iter().filter(|edge| edge.from == from) {
            reachable[from][edge.to] = true;
            let beyond = reachable[edge.to].clone();
            for (reached, beyond) in reachable[from].iter_mut().zip(beyond) {
                *reached |= beyond;
            }
        }
    }
    reachable
}
