//! The application as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use sensor_anomaly::Command;

/// Finds windows of sensor readings that are unlike what it has learnt
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "Example:
  sensor-anomaly generate --out data/pump.csv
  REMORA_KIND=learn REMORA_INPUT=data REMORA_OUTPUT=. sensor-anomaly run";

fn main() -> ExitCode {
    Cli::parse().command.run()
}
