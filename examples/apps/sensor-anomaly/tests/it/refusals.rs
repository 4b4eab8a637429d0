//! What is wrong is named, and nothing is left behind.

use serde_json::{Value, json};

use crate::{Desk, defaults};

#[test]
fn bad_data_is_refused_with_file_line_and_column() {
    let cases = [
        ("", "the file is empty; want a header with channels"),
        ("a,b\n", "the file has a header but no rows"),
        ("a,,c\n1,2,3\n", "line 1, column 2: the header has no name there; want one for each channel"),
        ("a,b,a\n1,2,3\n", "line 1: the header has \"a\" twice; want each channel once"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, want 2 as in the header"),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", "line 3: 1 fields, want 2 as in the header"),
        ("a,b\n1,2\n3,warm\n", "line 3, column b: \"warm\" is no reading; want a number up to 1e12"),
        ("a,b\n1,\n", "line 2, column b: \"\" is no reading; want a number up to 1e12"),
        ("a,b\nNaN,1\n", "line 2, column a: \"NaN\" is no reading; want a number up to 1e12"),
        ("a,b\n1,-inf\n", "line 2, column b: \"-inf\" is no reading; want a number up to 1e12"),
        ("a,b\n1,2e12\n", "line 2, column b: \"2e12\" is no reading; want a number up to 1e12"),
        ("a,b\n1,2\n", "1 rows, want 80 at least: 5 windows"),
    ];
    for (text, expected) in cases {
        let desk = Desk::new();
        let path = desk.write("data/pump.csv", text);
        let said = desk.run("learn", "data", "learnt").bad_input();
        assert_eq!(said, format!("error: {}: {expected}\n", path.display()), "{text:?}");
    }
}

#[test]
fn data_that_is_no_text_or_absent_is_refused() {
    let desk = Desk::new();
    let path = desk.write("binary/pump.csv", b"a,b\n\xff\xfe,1\n");
    let said = desk.run("learn", "binary", "learnt").bad_input();
    assert!(said.starts_with(&format!("error: cannot read {}: ", path.display())), "{said}");
    desk.folder("empty");
    let said = desk.run("learn", "empty", "learnt").bad_input();
    assert!(said.contains("has no data files; want one CSV file at least"), "{said}");
    let said = desk.run("learn", "nowhere", "learnt").bad_input();
    assert!(said.starts_with("error: cannot read the folder "), "{said}");
}

#[test]
fn data_of_other_channels_is_refused_with_both_sides() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 100");
    let model = desk.learn("data", "learnt", None, &json!({"steps": 1}));
    let other = "flow_l_min,current_a\n".to_owned() + &"1,2\n".repeat(100);
    let request = desk.write("request/request", &other);
    let expected = format!(
        "error: {}: the channels are current_a, flow_l_min; \
         the model has current_a, flow_l_min, pressure_bar, vibration_mm_s\n",
        request.display()
    );
    for kind in ["execute", "learn", "evaluate"] {
        assert_eq!(desk.run(kind, "request", "out").model(&model).bad_input(), expected);
    }
    desk.write("data/z.csv", &other);
    let said = desk.run("learn", "data", "out").bad_input();
    assert!(said.contains("z.csv: the channels are current_a, flow_l_min; the first file has"), "{said}");
}

#[test]
fn requests_shorter_than_a_window_are_refused() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 100");
    let model = desk.learn("data", "learnt", None, &json!({"steps": 1}));
    let request = desk.generate("request/request", "--rows 15");
    let said = desk.run("execute", "request", "out").model(&model).bad_input();
    let expected = format!("error: {}: 15 rows, want 16 at least, as long as a window\n", request.display());
    assert_eq!(said, expected);
}

#[test]
fn damaged_and_foreign_models_are_refused() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 100");
    let model = desk.learn("data", "learnt", None, &json!({"steps": 1}));
    let whole = std::fs::read(&model).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    // A file of safetensors that somebody else wrote: no tensors, no metadata.
    let foreign = [b"\x02\0\0\0\0\0\0\0".as_slice(), b"{}"].concat();
    let cases = [
        (whole[..whole.len() - 1].to_vec(), "it is no model of sensor-anomaly, or it is cut off"),
        (Vec::new(), "it is no model of sensor-anomaly, or it is cut off"),
        (b"not a model at all".to_vec(), "it is no model of sensor-anomaly, or it is cut off"),
        (foreign, "it is no model of sensor-anomaly, or it is cut off: it has no sensor-anomaly entry"),
        (flipped, "it is damaged: its checksum is "),
    ];
    for (bytes, expected) in cases {
        let path = desk.write("model", bytes);
        for kind in ["execute", "learn", "evaluate"] {
            let said = desk.run(kind, "data", "out").model(&path).refused();
            let begin = format!("error: the model {} is refused: {expected}", path.display());
            assert!(said.starts_with(&begin), "{said}");
        }
        let said = desk.run("evaluate", "data", "out").model(&model).champion(&path).refused();
        assert!(said.contains(expected), "{said}");
    }
    for kind in ["execute", "evaluate"] {
        let said = desk.run(kind, "data", "out").refused();
        assert!(said.starts_with("error: REMORA_MODEL is not set; want a model to "), "{said}");
    }
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let cases: [(Value, &str); 7] = [
        (json!({"window": 3}), "parameter window is 3; want 4 to 1024"),
        (json!({"steps": 0}), "parameter steps is 0; want 1 to 100000"),
        (json!({"quantile": 1.5}), "parameter quantile is 1.5; want 0.5 to 1"),
        (json!({"learning_rate": 0}), "parameter learning_rate is 0; want 1e-6 to 0.1"),
        (json!({"hidden": -1}), "hidden: invalid value: integer `-1`, expected usize"),
        (json!({"windows": 16}), "unknown field `windows`, expected one of `window`"),
        (json!("quick"), "invalid type: string \"quick\", expected struct Parameters"),
    ];
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 100");
    for (parameters, expected) in cases {
        let said = desk.run("learn", "data", "out").parameters(&parameters).refused();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_network_of_another_shape_is_neither_continued_nor_compared() {
    let desk = Desk::new();
    desk.generate("data/pump.csv", "--seed 1 --rows 400");
    let long = desk.learn("data", "long", None, &json!({"steps": 1, "window": 32}));
    let usual = desk.learn("data", "usual", None, &json!({"steps": 1}));
    let said = desk.run("learn", "data", "out").model(&long).parameters(&defaults()).refused();
    assert_eq!(
        said,
        "error: the parameters say window 16, hidden 16, code 8, the model to continue from has window 32, \
         hidden 16, code 8; want them equal\n"
    );
    let said = desk.run("evaluate", "data", "out").model(&usual).champion(&long).refused();
    assert_eq!(said, "error: the candidate's windows have 16 rows, the champion's 32; want the same\n");
}
