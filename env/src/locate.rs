//! The line of a scenario file that a problem is about.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Line, from 1, of what the key at the beginning of `problem` leads to, as far as the file has it.
/// Keys are written as in `topology.sites "edge".nodes "pi".link.up_mbps`: elements of a list go by
/// their name, those of `workload.streams` by their task.
pub(crate) fn line_of(text: &str, problem: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    let mut rest = problem;
    loop {
        let (key, behind) = rest.split_at(rest.find(|c| !is_bare(c)).unwrap_or(rest.len()));
        let Some((at, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else { break };
        found = Some(at.span().start);
        rest = behind;
        let mut value = value.get_ref();
        if let (DeValue::Array(list), Some((name, behind))) = (value, quoted(rest)) {
            let Some((at, element)) = list.iter().find_map(|element| named(element, &name)) else { break };
            found = Some(at);
            (value, rest) = (element, behind);
        }
        let (DeValue::Table(inner), Some(behind)) = (value, rest.strip_prefix('.')) else { break };
        (table, rest) = (inner, behind);
    }
    found.map(|start| text[..start].matches('\n').count() + 1)
}

fn is_bare(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '-'
}

/// The string that a problem quotes next, and what comes behind it.
fn quoted(rest: &str) -> Option<(String, &str)> {
    let rest = rest.strip_prefix(' ')?;
    let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let name = strings.next()?.ok()?;
    Some((name, &rest[strings.byte_offset()..]))
}

/// Where the element's name is written, and the element, if it has this name.
fn named<'a, 'i>(element: &'a Spanned<DeValue<'i>>, name: &str) -> Option<(usize, &'a DeValue<'i>)> {
    let DeValue::Table(table) = element.get_ref() else { return None };
    let (key, _) = table.iter().find(|(key, value)| {
        matches!(&**key.get_ref(), "name" | "task") && value.get_ref().as_str() == Some(name)
    })?;
    Some((key.span().start, element.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::line_of;

    const TEXT: &str = r#"name = "x"
[topology]
peers = false
[[topology.sites]]
name = "a"
[[topology.sites]]
name = "say \"b\""
uplink = { up_mbps = 1,
  price = -1 }
nodes = [
  { name = "pi", kind = "k" },
]
[workload]
[[workload.streams]]
task = "serve"
instances = 0
"#;

    #[test]
    fn keys_lead_as_far_as_the_file_goes() {
        for (problem, line) in [
            ("name is wrong", 1),
            ("topology.sites \"a\".uplink.up_mbps is 0", 5),
            ("topology.sites \"say \\\"b\\\"\".uplink.price is -1, want more", 9),
            ("topology.sites \"say \\\"b\\\"\".nodes \"pi\".kind: no", 11),
            ("topology.sites \"none\".uplink.price", 4),
            ("topology has 3 nodes", 2),
            ("workload.streams \"serve\".instances.count is 0", 16),
            ("workload.tasks is 0", 13),
        ] {
            assert_eq!(line_of(TEXT, problem), Some(line), "{problem}");
        }
        assert_eq!(line_of(TEXT, "faults.crashes is 0"), None);
        assert_eq!(line_of("= broken", "name"), None);
    }
}
