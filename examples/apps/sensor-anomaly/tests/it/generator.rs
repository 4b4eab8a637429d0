//! Data for newcomers.

use crate::{Desk, mean, rows};

#[test]
fn the_same_seed_gives_the_same_file_and_anomalies_change_only_their_rows() {
    let desk = Desk::new();
    let plain = rows(&desk.generate("plain.csv", "--seed 4 --rows 600"));
    assert_eq!(plain.len(), 600);
    assert_eq!(plain, rows(&desk.generate("again.csv", "--seed 4 --rows 600")));
    assert_ne!(plain, rows(&desk.generate("other.csv", "--seed 5 --rows 600")));

    let spoilt = rows(&desk.generate("spoilt.csv", "--seed 4 --rows 600 --anomalies 25 --labels labels.csv"));
    let labels = rows(&desk.path("labels.csv"));
    assert_eq!((labels.len(), labels.iter().filter(|label| label[0] == 1.0).count()), (600, 25 * 12));
    for (row, label) in labels.iter().enumerate() {
        assert!(label[0] == 1.0 || spoilt[row] == plain[row], "row {row} is not labelled but changed");
    }
    assert_ne!(spoilt, plain);
}

#[test]
fn a_worn_pump_draws_more_current_for_less_flow() {
    let desk = Desk::new();
    let figure = |options: &str, channel: usize| {
        let rows = rows(&desk.generate("pump.csv", options));
        mean(&rows.iter().map(|row| row[channel]).collect::<Vec<_>>())
    };
    assert!(figure("--drift 0.5", 0) < figure("", 0));
    assert!(figure("--drift 0.5", 2) > 1.2 * figure("", 2));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let desk = Desk::new();
    let cases = [
        ("--rows 0", "--rows is 0; want 1 to 10000000"),
        ("--drift NaN", "--drift is NaN; want -0.9 to 10"),
        ("--rows 100 --anomalies 5", "--anomalies is 5; 100 rows have room for 4"),
    ];
    for (options, expected) in cases {
        let output = desk.try_to_generate("pump.csv", options);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said), (Some(1), format!("error: {expected}\n")));
    }
    let said = String::from_utf8(desk.try_to_generate(".", "").stderr).unwrap();
    assert!(said.starts_with("error: cannot write "), "{said}");
}
