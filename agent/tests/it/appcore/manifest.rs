//! `app.toml`: all that it may say, and what is said where it is wrong.

use remora_agent::appcore::manifest::Manifest;
use serde_json::Value;

/// Everything that there is, once.
const EVERYTHING: &str = include_str!("everything.toml");

fn refused(text: &str) -> String {
    Manifest::read(text).unwrap_err().to_string()
}

#[test]
fn everything_is_read_and_written_as_it_was() {
    let manifest = Manifest::read(EVERYTHING).unwrap();
    let written = toml::to_string(&manifest).unwrap();
    assert_eq!(Manifest::read(&written).unwrap(), manifest);
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

/// At every level of the file a key that is not known is refused, with its name and line.
#[test]
fn unknown_keys_are_refused_wherever_they_stand() {
    let lines: Vec<&str> = EVERYTHING.lines().collect();
    let mut tried = 0;
    let sections =
        lines.iter().enumerate().filter(|(_, line)| line.starts_with('[') && **line != "[parameters]");
    for at in sections.map(|(index, _)| index + 1).chain([0]) {
        let text = [&lines[..at], &["sped = 1"], &lines[at..]].concat().join("\n");
        let message = refused(&text);
        assert!(message.contains("sped"), "{message}");
        assert!(message.contains(&format!("line {}", at + 1)), "{message}");
        tried += 1;
    }
    assert_eq!(tried, 19);
}

#[test]
fn all_that_is_wrong_is_said() {
    let wrong = [
        "name = 'Upper'",
        "name = ''\n[evaluate]\ncommand = ['']",
        "name = 'a'\nfiles = ['x/', 'a/b', 'c/b', 'd/log', '..']\n[learn]\ncommand = ['a\\u0000']
        [parameters]\nx = nan",
        "name = 'a'\n[learn]\ncommand = []\nlimits = { timeout_s = 0, cpu_millis = 0, memory_mib = 0, output_mib = 0 }",
        "name = 'a'\n[execute]\ncommand = ['b']
        awake = { wake = [''], wake_deadline_s = nan, idle_s = -1, concurrency = 0, queue = 0 }",
        "name = 'a'\n[learn]\ncommand = ['b']
        [gate]\nmargin = -1\nconfidence = 1\nsamples = 1\nfirst = inf\nroll_back_after = 0
        [failures]\nbackoff_s = 100\nlongest_backoff_s = 10\nquarantine_after = 0
        [keep]\nruns = 0\ndays = 0",
        "name = 'a'\n[learn]\ncommand = ['b']
        [[trigger]]\nname = 'x'\nrun = 'execute'\non.manual = {}
        [[trigger]]\nname = 'x'\non.schedule = { cron = '61 * * * *', catch_up_s = -1 }
        [[trigger]]\nname = 'y'\non.schedule = { cron = '* * * * *', zone = 'Paris' }
        [[trigger]]\nname = 'z'\non.data = { count = 0, debounce_s = 5, longest_s = 1, folder = 'here' }
        [[trigger]]\nname = '-'\non.drift = { metric = 'm' }
        [[trigger]]\nname = 'w'\non.drift = { metric = 'm', above = nan, times = 0 }",
        "name = 'a'\n[execute]\ncommand = ['b']\n[[trigger]]\nname = 'x'\non.manual = {}",
        "name = 'a'\n[learn]\ncommand = 'b'",
        "name = 'a'\n[learn]\ncommand = ['b']\n[[trigger]]\nname = 'x'\non.moon = {}",
    ];
    let said = wrong.map(|text| {
        let text = text.replace("\\u0000", "\u{0}").replace("['a\u{0}']", "[\"a\\u0000\"]");
        refused(&text)
    });
    insta::assert_snapshot!(said.join("\n\n"));
    let triggers: String =
        (0..101).map(|n| format!("[[trigger]]\nname = 't{n}'\non.manual = {{}}\n")).collect();
    let many = format!("name = 'a'\n[learn]\ncommand = ['b']\n{triggers}");
    assert_eq!(refused(&many), "trigger: there are 101, want at most 100");
}

/// As much of JSON Schema as ours uses; a keyword beyond that is an error.
fn accepts(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(schema) = schema else { return schema == &Value::Bool(true) };
    let holds = |(keyword, want): (&String, &Value)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
        "$ref" => {
            let target = want.as_str().unwrap().strip_prefix('#').unwrap();
            accepts(root, root.pointer(target).unwrap(), value)
        }
        "type" => {
            let is = |name: &Value| match name.as_str().unwrap() {
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                other => panic!("type {other}"),
            };
            want.as_array().map_or_else(|| is(want), |any| any.iter().any(is))
        }
        "enum" => want.as_array().unwrap().contains(value),
        "const" => want == value,
        "minimum" => value.as_f64().is_none_or(|value| value >= want.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|value| value <= want.as_f64().unwrap()),
        "anyOf" => want.as_array().unwrap().iter().any(|one| accepts(root, one, value)),
        "oneOf" => want.as_array().unwrap().iter().filter(|one| accepts(root, one, value)).count() == 1,
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| accepts(root, want, item))),
        "required" => want.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
        "properties" => want
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, one)| value.get(key).is_none_or(|value| accepts(root, one, value))),
        "additionalProperties" => {
            let known = |key: &String| schema.get("properties").is_some_and(|known| known.get(key).is_some());
            let mut others = value.as_object().into_iter().flatten().filter(|(key, _)| !known(key));
            others.all(|(_, other)| accepts(root, want, other))
        }
        other => panic!("keyword {other}"),
    };
    schema.iter().all(holds)
}

#[test]
fn the_schema_accepts_what_is_right_and_nothing_unknown() {
    let schema = Manifest::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let right: Value = toml::from_str(EVERYTHING).unwrap();
    assert!(accepts(&schema, &schema, &right));
    for (place, wrong) in
        [("", "sped"), ("/gate", "sped"), ("/trigger/0/on/schedule", "sped"), ("/learn", "image")]
    {
        let mut value = right.clone();
        value.pointer_mut(place).unwrap()[wrong] = Value::from(1);
        assert!(!accepts(&schema, &schema, &value), "{place}/{wrong}");
    }
}
