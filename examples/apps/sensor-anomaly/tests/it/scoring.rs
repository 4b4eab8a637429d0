//! What is unlike the normal is found, and named.

use serde_json::Value;

use crate::{Desk, defaults, mean, rows};

/// How often a window with an anomaly scores higher than one without: area under the curve of hits over false alarms.
fn auc(anomalous: &[f64], normal: &[f64]) -> f64 {
    let above = |score: &f64| normal.iter().filter(|other| *other < score).count() as f64;
    anomalous.iter().map(above).sum::<f64>() / (anomalous.len() * normal.len()) as f64
}

/// The trivial way: how many standard deviations the readings of a window are off, at most.
fn z_scores(known: &[Vec<f64>], windows: &[&[Vec<f64>]]) -> Vec<f64> {
    let spread: Vec<(f64, f64)> = (0..known[0].len())
        .map(|channel| {
            let values: Vec<f64> = known.iter().map(|row| row[channel]).collect();
            let middle = mean(&values);
            let variance = mean(&values.iter().map(|value| (value - middle).powi(2)).collect::<Vec<_>>());
            (middle, variance.sqrt())
        })
        .collect();
    let z = |row: &Vec<f64>| {
        let off =
            row.iter().zip(&spread).map(|(value, (middle, deviation))| (value - middle).abs() / deviation);
        off.fold(0.0, f64::max)
    };
    windows.iter().map(|window| window.iter().map(z).fold(0.0, f64::max)).collect()
}

fn bounds(window: &Value) -> std::ops::Range<usize> {
    let row = |name: &str| window[name].as_u64().unwrap() as usize;
    row("first_row") - 1..row("last_row")
}

#[test]
fn anomalies_are_found_that_stay_within_the_range_of_normal_readings() {
    let desk = Desk::new();
    let known = rows(&desk.generate("data/pump.csv", "--seed 1"));
    let model = desk.learn("data", "learnt", None, &defaults());
    let request = desk.generate("unseen/request", "--seed 3 --rows 8000 --anomalies 120 --labels labels.csv");
    let (request, labels) = (rows(&request), rows(&desk.path("labels.csv")));
    assert_eq!(labels.iter().filter(|label| label[0] == 1.0).count(), 120 * 12);

    let response = desk.score("unseen", &model);
    let windows = response["windows"].as_array().unwrap();
    let anomalous_rows =
        |window: &Value| labels[bounds(window)].iter().filter(|label| label[0] == 1.0).count();
    // Windows with one to three anomalous rows are neither.
    let (anomalous, others): (Vec<_>, Vec<_>) = windows.iter().partition(|window| anomalous_rows(window) > 3);
    let normal: Vec<_> = others.into_iter().filter(|window| anomalous_rows(window) == 0).collect();
    assert!(anomalous.len() > 100 && normal.len() > 200);

    let scores =
        |windows: &[&Value]| windows.iter().map(|w| w["score"].as_f64().unwrap()).collect::<Vec<_>>();
    let z = |windows: &[&Value]| {
        z_scores(&known, &windows.iter().map(|window| &request[bounds(window)]).collect::<Vec<_>>())
    };
    let ours = auc(&scores(&anomalous), &scores(&normal));
    let trivial = auc(&z(&anomalous), &z(&normal));
    assert!(ours > 0.9 && trivial < 0.75, "{ours} against {trivial} of z-scores");

    let share = |windows: &[&Value]| {
        windows.iter().filter(|w| w["anomaly"].as_bool().unwrap()).count() as f64 / windows.len() as f64
    };
    assert!(share(&normal) < 0.05, "{} of normal windows raise an alarm", share(&normal));
    assert!(share(&anomalous) > 0.7, "{} of anomalous windows raise an alarm", share(&anomalous));
}

#[test]
fn the_channel_to_look_at_is_named_and_every_row_is_covered() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1");
    let model = desk.learn("data", "learnt", None, &defaults());
    let normal = desk.generate("normal.csv", "--seed 5 --rows 100");
    // The columns in another order; the pressure sensor is broken from row 33 to 48, far beyond any number known.
    let lines = rows(&normal).into_iter().enumerate().map(|(row, values)| {
        let pressure = if (32..48).contains(&row) { 9e11 } else { values[1] };
        format!("{},{},{pressure},{}\n", values[3], values[2], values[0])
    });
    let header = "vibration_mm_s,current_a,pressure_bar,flow_l_min\n".to_owned();
    desk.write("broken/request", header + &lines.collect::<String>());

    let response = desk.score("broken", &model);
    let windows = response["windows"].as_array().unwrap();
    let covered: Vec<_> = windows.iter().map(bounds).collect();
    assert_eq!(covered, [0..16, 16..32, 32..48, 48..64, 64..80, 80..96, 84..100]);
    let score = |window: &Value| window["score"].as_f64().unwrap();
    let others = windows.iter().map(score).enumerate().filter(|(index, _)| *index != 2);
    assert!(others.map(|(_, score)| score).fold(0.0, f64::max) < score(&windows[2]) / 1e6, "{response}");
    assert_eq!(windows[2]["anomaly"], true);
    assert_eq!(windows[2]["channel"], "pressure_bar");
    assert!(windows[2]["share"].as_f64().unwrap() > 0.9);
    let threshold = response["threshold"].as_f64().unwrap();
    for window in windows {
        assert_eq!(window["anomaly"], score(window) > threshold);
    }
}
