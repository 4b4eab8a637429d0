//! The measured functions that ship, against the tables that they were made from.

use std::path::Path;

use remora_env::measured::FUNCTIONS;

/// Every distribution that was published is among ours, for the same device, with the same mean,
/// least and most.
#[test]
fn published_distributions_are_all_there() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/faas-sim"));
    if !folder.exists() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let mut rows = 0;
    for file in ["exec_times_raith21.csv", "exec_times_fgcs.csv"] {
        let mut reader = csv::Reader::from_path(folder.join(file)).unwrap();
        for row in reader.records() {
            let row = row.unwrap();
            let number = |column: usize| row[column].parse::<f64>().unwrap();
            let (least_s, most_s, mean_s) = (number(2), number(3), number(7));
            let device = match &row[0] {
                "cloud" => "cloud-vm",
                "pi" => "rpi3",
                "tegra" => "tx2",
                "xeoncpu" => "xeon-cpu",
                "xeongpu" => "xeon-gpu",
                same => same,
            };
            let near = |ours: f64, published: f64| (ours / published - 1.0).abs() < 0.01;
            let times = FUNCTIONS.iter().flat_map(|function| function.execution());
            let mut here = times.filter(|(kind, _)| *kind == device).map(|(_, time)| time);
            let found = here.any(|time| {
                near(time.mean_s, mean_s)
                    && near(time.quantile(1e-12), least_s)
                    && near(time.quantile(1.0 - 1e-12), most_s)
            });
            assert!(found, "{file}: {row:?}");
            rows += 1;
        }
    }
    assert_eq!(rows, 88);
}
