//! `remora scenario`: what can be simulated.

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use remora_env::family::Family;
use remora_env::outcome::End;
use remora_env::scenario::{TESTBED, built_in, shipped};
use remora_env::{Scenario, World, contract};

use serde_json::Value;

use super::{print, table, tables};

/// List, show and check scenarios.
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Example:\n  remora scenario show urban-sensing > my.toml\n  remora scenario check my.toml\n  remora scenario show my.toml --nodes 1000 > larger.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the built-in scenarios and the families of generated ones.
    List,
    /// Print a scenario file.
    Show {
        /// A built-in name, a member of a family, or a file.
        name: String,
        /// Grown to so many nodes: more sites of each sort, and as much more to do.
        #[arg(long)]
        nodes: Option<u32>,
        /// How many tasks it then has; otherwise as many times more as there are nodes.
        #[arg(long, requires = "nodes")]
        tasks: Option<u32>,
    },
    /// Check a scenario: read it, say what is in it, and play some worlds of it against the
    /// simulator's promises (books that balance after every event, one outcome for each task, the
    /// same results from the same seed).
    Check {
        /// A built-in name, a member of a family, or a file.
        file: String,
        /// How many worlds to play.
        #[arg(long, default_value_t = 2)]
        worlds: u64,
        /// How many tasks of each at most.
        #[arg(long, default_value_t = 200)]
        tasks: u32,
    },
    /// Print the JSON Schema of scenario files.
    Schema,
}

pub fn run(args: &Args, json: bool) -> Result<()> {
    match &args.command {
        Command::List => list(json),
        Command::Show { name, nodes: Some(nodes), tasks } => {
            print(Scenario::load(name)?.larger(*nodes, *tasks)?.to_toml().trim_end())
        }
        Command::Show { name, .. } => show(name),
        Command::Check { file, worlds, tasks } => check(file, *worlds, *tasks, json),
        Command::Schema => tables::print_json(&Scenario::schema()),
    }
}

fn list(json: bool) -> Result<()> {
    let mut rows = Vec::new();
    for name in built_in().chain([TESTBED.0]) {
        rows.push(describe(&Scenario::load(name)?));
    }
    for family in Family::ALL {
        let name = format!("{}/N", family.name());
        rows.push(serde_json::json!({ "scenario": name, "summary": family.summary() }));
    }
    if json {
        return tables::print_rows(&rows);
    }
    let mut table = table(&["scenario", "nodes", "tasks", "what it is"]);
    for row in &rows {
        let text = |key: &str| match &row[key] {
            Value::Null => "any".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row([text("scenario"), text("nodes"), text("tasks"), text("summary")]);
    }
    print(table)
}

fn show(name: &str) -> Result<()> {
    let scenario = Scenario::load(name)?;
    match shipped(name) {
        Some(text) => print(text.trim_end()),
        None if Family::of(name).is_some() => print(scenario.to_toml().trim_end()),
        None => print(std::fs::read_to_string(name)?.trim_end()),
    }
}

fn check(file: &str, worlds: u64, tasks: u32, json: bool) -> Result<()> {
    let scenario = Scenario::load(file)?;
    let mut row = describe(&scenario);
    let played = contract::check(&scenario, worlds, tasks)?;
    let ends: Vec<_> = End::ALL.iter().zip(played.ends).filter(|(_, count)| *count > 0).collect();
    if json {
        row["played_worlds"] = played.worlds.into();
        row["played_decisions"] = played.decisions.into();
        row["played_events"] = played.events.into();
        for (end, count) in ends {
            row[serde_json::to_value(end)?.as_str().unwrap_or_default()] = count.into();
        }
        return tables::print_rows(&[row]);
    }
    print(format_args!(
        "{file} is accepted: {} nodes, {} links, {} images, {} datasets, {} tasks, {} of them unplaceable",
        row["nodes"], row["links"], row["images"], row["datasets"], row["tasks"], row["unplaceable"]
    ))?;
    let ends: Vec<_> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    print(format_args!(
        "played {} worlds at random: {} decisions, {} events, the books balanced after each; {}",
        played.worlds,
        played.decisions,
        played.events,
        ends.join(", ")
    ))
}

fn describe(scenario: &Scenario) -> Value {
    let world = scenario.world(0);
    serde_json::json!({
        "scenario": scenario.name(),
        "summary": scenario.file.summary,
        "nodes": world.topology.nodes.len(),
        "links": world.topology.links.len(),
        "images": world.catalogue.images.len(),
        "datasets": world.catalogue.datasets.len(),
        "tasks": world.tasks.len(),
        "unplaceable": unplaceable(&world),
    })
}

/// Tasks that no node of the cluster could ever run.
pub fn unplaceable(world: &World) -> usize {
    let cluster = world.initial_cluster();
    let nodes = || 0..world.topology.nodes.len() as u32;
    world.tasks.iter().filter(|planned| !nodes().any(|node| cluster.can_run(&planned.task, node))).count()
}
