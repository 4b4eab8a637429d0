//! The simulator as the Python module `remora_env._native`. What Gymnasium wants of it is written in
//! Python, in `remora_env/`.

use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, ToPyArray};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::{Bound, Py, PyModule, PyResult, Python, pyclass, pyfunction, pymethods, pymodule};
use pyo3::types::{PyDict, PyDictMethods, PyModuleMethods};
use pyo3::wrap_pyfunction;
use rayon::prelude::{IntoParallelRefMutIterator, ParallelIterator};
use remora_env::family::Family;
use remora_env::observation::{FEATURE_COUNT, FEATURES, Reference};
use remora_env::outcome::{End, Outcome};
use remora_env::{Episode, Next, Observation, Scenario, Scenarios};
use remora_policies::{by_name, choose, rollout};

/// A scenario, or a family of which every seed is another member.
#[pyclass(frozen, name = "Scenario")]
struct PyScenario {
    scenarios: Scenarios,
    tasks: Option<u32>,
    /// What the ends of the dial are measured in; of members of a family, each has its own.
    reference: Option<Reference>,
}

#[pymethods]
impl PyScenario {
    /// A built-in scenario or family by name, or a file by path. `tasks` cuts every world off after so
    /// many; `reference` is (seconds, price-weighted bytes) per task, those of `kube-default` if None.
    #[new]
    #[pyo3(signature = (name, tasks=None, reference=None))]
    fn new(
        py: Python<'_>,
        name: &str,
        tasks: Option<u32>,
        reference: Option<(f64, f64)>,
    ) -> PyResult<PyScenario> {
        let scenarios =
            Scenarios::load(name).map_err(|error| PyValueError::new_err(format!("scenario: {error}")))?;
        if tasks == Some(0) {
            return Err(PyValueError::new_err("tasks is 0, want at least 1"));
        }
        let mut made = PyScenario { scenarios, tasks, reference: None };
        made.reference = match reference {
            Some((response_s, moved_bytes)) => {
                for (name, value) in [("reference[0]", response_s), ("reference[1]", moved_bytes)] {
                    if !(value > 0.0 && value.is_finite()) {
                        return Err(PyValueError::new_err(format!(
                            "{name} is {value}, want a number above 0"
                        )));
                    }
                }
                Some(Reference::new(response_s, moved_bytes))
            }
            None if matches!(made.scenarios, Scenarios::Family(_)) => None,
            None => Some(py.detach(|| rollout::reference(&made.at(0)))),
        };
        Ok(made)
    }

    #[getter]
    fn name(&self) -> &str {
        self.scenarios.name()
    }

    /// It never changes, so copies share it.
    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyDict>) -> Py<Self> {
        slf
    }

    /// The world of a seed, at its first decision; `limit` cuts it off after so many decisions.
    #[pyo3(signature = (seed, alpha, shortlist, limit=None))]
    fn start(
        &self,
        py: Python<'_>,
        seed: u64,
        alpha: f64,
        shortlist: usize,
        limit: Option<usize>,
    ) -> PyResult<PyEpisode> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(PyValueError::new_err(format!("alpha is {alpha}, want 0 to 1")));
        }
        if !(1..=4096).contains(&shortlist) {
            return Err(PyValueError::new_err(format!("shortlist is {shortlist}, want 1 to 4096")));
        }
        if limit == Some(0) {
            return Err(PyValueError::new_err("limit is 0, want at least 1"));
        }
        Ok(py.detach(|| {
            let scenario = self.at(seed);
            let reference = self.reference.unwrap_or_else(|| rollout::reference(&scenario));
            let episode = Episode::new(Arc::new(scenario.world(seed)), alpha, reference)
                .with_limit(limit.unwrap_or(usize::MAX));
            let mut started = PyEpisode { episode, reference, shortlist, seen: Seen::default() };
            started.see();
            started
        }))
    }
}

impl PyScenario {
    /// The scenario whose world of this seed is played.
    fn at(&self, seed: u64) -> Scenario {
        let mut scenario = self.scenarios.at(seed).into_owned();
        scenario.file.workload.tasks = self.tasks.or(scenario.file.workload.tasks);
        scenario
    }
}

/// What was last observed, as rows.
#[derive(Clone, Default)]
struct Seen {
    /// `[shortlist, FEATURE_COUNT]`, zero where there is no candidate.
    features: Vec<f32>,
    /// Node behind each position, and the position that costs least.
    nodes: Vec<u32>,
    cheapest: usize,
    end: Option<Stopped>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stopped {
    Terminated,
    Truncated,
}

/// One run of a world.
#[pyclass(name = "Episode")]
#[derive(Clone)]
struct PyEpisode {
    episode: Episode,
    reference: Reference,
    shortlist: usize,
    seen: Seen,
}

/// What a step gave: reward, and whether the action was none of the candidates.
struct Stepped {
    reward: f64,
    invalid: bool,
}

impl PyEpisode {
    fn see(&mut self) {
        self.seen.features.clear();
        self.seen.features.resize(self.shortlist * FEATURE_COUNT, 0.0);
        self.seen.nodes.clear();
        let (observation, end) = match self.episode.next() {
            Next::Decide(observation) => (observation, None),
            Next::Truncated(observation) => (observation, Some(Stopped::Truncated)),
            Next::Terminated => {
                self.seen.end = Some(Stopped::Terminated);
                return;
            }
        };
        let shortlist = observation.shortlist(self.shortlist);
        observation
            .features(&observation.look(&shortlist), self.seen.features.chunks_exact_mut(FEATURE_COUNT));
        let cost = |position: &usize| observation.cost(&observation.candidates()[shortlist[*position]]);
        let cheapest = (0..shortlist.len()).min_by(|a, b| cost(a).total_cmp(&cost(b)));
        self.seen.cheapest = cheapest.unwrap_or(0);
        self.seen.nodes.extend(shortlist.iter().map(|&index| observation.candidates()[index].node));
        self.seen.end = end;
    }

    /// Places the waiting task on the node at a position of the shortlist; where there is none, the
    /// cheapest stands in.
    fn act(&mut self, action: usize) -> Stepped {
        let invalid = action >= self.seen.nodes.len();
        let node = self.seen.nodes[if invalid { self.seen.cheapest } else { action }];
        let elapsed = self.episode.step(node);
        let reward = -self.episode.cost_of(elapsed);
        self.see();
        Stepped { reward, invalid }
    }
}

#[pymethods]
impl PyEpisode {
    /// `[shortlist, features]`, 32-bit floats.
    fn observation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.seen.features.to_pyarray(py).reshape([self.shortlist, FEATURE_COUNT])
    }

    /// `[shortlist]`, true where there is a candidate.
    fn mask<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let mask: Vec<bool> = (0..self.shortlist).map(|position| position < self.seen.nodes.len()).collect();
        mask.to_pyarray(py)
    }

    /// (terminated, truncated)
    fn ended(&self) -> (bool, bool) {
        (self.seen.end == Some(Stopped::Terminated), self.seen.end == Some(Stopped::Truncated))
    }

    /// (reward, whether the action was none of the candidates). An error once the episode has ended.
    fn step(&mut self, py: Python<'_>, action: usize) -> PyResult<(f64, bool)> {
        if self.seen.end.is_some() {
            return Err(PyRuntimeError::new_err("the episode has ended: call reset()"));
        }
        let stepped = py.detach(|| self.act(action));
        Ok((stepped.reward, stepped.invalid))
    }

    /// A copy that goes on by itself.
    fn copy(&self) -> PyEpisode {
        self.clone()
    }

    /// `copy.deepcopy(env)` looks ahead.
    fn __deepcopy__(&self, _memo: &Bound<'_, PyDict>) -> PyEpisode {
        self.clone()
    }

    /// What the ends of the dial are measured in: (seconds, price-weighted bytes) per task.
    #[getter]
    fn reference(&self) -> (f64, f64) {
        (self.reference.response_s, self.reference.moved_bytes)
    }

    /// Seconds since the world began.
    fn now_s(&self) -> f64 {
        self.episode.cluster().now.as_s()
    }

    /// Name of the task that waits, and of the node behind each position of the shortlist.
    fn waiting(&self) -> (Option<String>, Vec<String>) {
        let world = self.episode.world();
        let task = self.episode.pending().map(|task| world.tasks[task as usize].name.to_string());
        let name = |node: &u32| world.topology.nodes[*node as usize].name.clone();
        (task, self.seen.nodes.iter().map(name).collect())
    }

    /// Position in the shortlist that a built-in heuristic prefers, which looks at all candidates.
    fn heuristic(&self, name: &str) -> PyResult<usize> {
        let mut policy = by_name(name, self.episode.world().seed)
            .map_err(|error| PyValueError::new_err(format!("name: {error}")))?;
        let Next::Decide(observation) = self.episode.next() else {
            return Err(PyRuntimeError::new_err("the episode has ended: call reset()"));
        };
        let scores = choose(policy.as_mut(), &observation).scores;
        let score = |node: &u32| score_of(&observation, &scores, *node);
        let positions = self.seen.nodes.iter().map(score).enumerate();
        Ok(positions.rev().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(position, _)| position))
    }

    /// What became of the tasks that have ended.
    fn outcomes<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.episode.outcomes().iter().map(|outcome| self.outcome(py, outcome)).collect()
    }
}

fn score_of(observation: &Observation<'_>, scores: &[f64], node: u32) -> f64 {
    let index = observation.candidates().iter().position(|candidate| candidate.node == node);
    index.map_or(f64::NEG_INFINITY, |index| scores[index])
}

impl PyEpisode {
    fn outcome<'py>(&self, py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyDict>> {
        let world = self.episode.world();
        let dict = PyDict::new(py);
        dict.set_item("task", &*world.tasks[outcome.task as usize].name)?;
        dict.set_item("end", end_name(outcome.end))?;
        dict.set_item("node", outcome.node.map(|node| world.topology.nodes[node as usize].name.as_str()))?;
        dict.set_item("arrived_s", outcome.arrived.as_s())?;
        dict.set_item("response_s", outcome.response_s())?;
        dict.set_item("moved_bytes", outcome.moved_bytes)?;
        dict.set_item("wan_bytes", outcome.wan_bytes)?;
        dict.set_item("energy_j", outcome.energy_j)?;
        dict.set_item("usd", outcome.usd)?;
        dict.set_item("retries", outcome.retries)?;
        dict.set_item("deadline_missed", outcome.deadline_missed)?;
        Ok(dict)
    }
}

fn end_name(end: End) -> String {
    end.to_string().replace(' ', "_")
}

/// Steps several episodes over threads: rewards and flags in their order. None of them may have
/// ended.
#[pyfunction]
fn step_all(py: Python<'_>, episodes: Vec<Py<PyEpisode>>, actions: Vec<usize>) -> PyResult<Vec<(f64, bool)>> {
    if episodes.len() != actions.len() {
        let problem = format!("{} actions for {} episodes", actions.len(), episodes.len());
        return Err(PyValueError::new_err(problem));
    }
    let mut borrowed: Vec<_> = episodes.iter().map(|episode| episode.borrow_mut(py)).collect();
    let mut running: Vec<(&mut PyEpisode, usize)> =
        borrowed.iter_mut().map(|episode| &mut **episode).zip(actions).collect();
    if running.iter().any(|(episode, _)| episode.seen.end.is_some()) {
        return Err(PyRuntimeError::new_err("an episode has ended: start another in its place"));
    }
    let stepped: Vec<Stepped> =
        py.detach(|| running.par_iter_mut().map(|(episode, action)| episode.act(*action)).collect());
    Ok(stepped.iter().map(|stepped| (stepped.reward, stepped.invalid)).collect())
}

/// Observations of several episodes with the same shortlist: `[episodes, shortlist, features]`.
#[pyfunction]
fn observe_all<'py>(py: Python<'py>, episodes: Vec<Py<PyEpisode>>) -> PyResult<Bound<'py, PyArray3<f32>>> {
    let mut rows = Vec::new();
    let mut shortlist = 0;
    for episode in &episodes {
        let episode = episode.borrow(py);
        shortlist = episode.shortlist;
        rows.extend_from_slice(&episode.seen.features);
    }
    rows.to_pyarray(py).reshape([episodes.len(), shortlist, FEATURE_COUNT])
}

/// Names of the features, in the order of the columns.
#[pyfunction]
fn feature_names() -> Vec<&'static str> {
    FEATURES.iter().map(|feature| feature.name).collect()
}

/// Names of the built-in scenarios and of the families of generated ones.
#[pyfunction]
fn scenarios() -> Vec<&'static str> {
    remora_env::scenario::built_in().chain(Family::ALL.map(Family::name)).collect()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyScenario>()?;
    module.add_class::<PyEpisode>()?;
    module.add_function(wrap_pyfunction!(step_all, module)?)?;
    module.add_function(wrap_pyfunction!(observe_all, module)?)?;
    module.add_function(wrap_pyfunction!(feature_names, module)?)?;
    module.add_function(wrap_pyfunction!(scenarios, module)?)?;
    Ok(())
}
