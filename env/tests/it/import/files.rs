//! CSV as it comes: other orders and line ends, files that are no tables, arbitrary bytes.

use proptest::prelude::{any, prop_assert, proptest};
use remora_env::import::{GenaiOptions, Imported, genai, openb};

use super::{Folder, NODES, PODS, REQUESTS, accepted};

#[test]
fn the_order_of_columns_and_the_line_ends_do_not_matter() {
    let folder = Folder::new();
    let expected = folder.openb(NODES, PODS).unwrap();
    let nodes = "\u{feff}model,gpu,memory_mib,cpu_milli,sn,more\n,0,262144,32000,plain,\n\nV100M32,8,786432,96000,\"big\",x";
    let imported = folder.openb(nodes.replace('\n', "\r\n"), PODS.replace('\n', "\r\n")).unwrap();
    assert_eq!(imported.trace, expected.trace);
    let text = |imported: &Imported| toml::to_string(&imported.scenario).unwrap();
    assert_eq!(text(&imported), text(&expected));
}

#[test]
fn lines_are_counted_as_an_editor_does() {
    let folder = Folder::new();
    let damaged = NODES.replace("96000", "12x");
    for (text, line) in [
        (damaged.replace('\n', "\r\n"), 3),
        (damaged.replace('\n', "\n\n"), 5),
        (format!("\u{feff}\r\n\n{}", damaged.replace('\n', "\r\n\r\n")), 7),
    ] {
        let message = folder.refusal(folder.openb(&text, PODS));
        assert!(message.starts_with(&format!("nodes.csv, line {line}, column cpu_milli: ")), "{message}");
    }
}

#[test]
fn files_that_are_no_tables_are_refused() {
    let folder = Folder::new();
    let refusal = |requests: &[u8]| folder.refusal(folder.genai(requests));
    let header = REQUESTS.lines().next().unwrap();
    let pending = format!("{header}\n2024-02-29 00:00:10,TXT_2_IMG,PENDING,0.0,G0000,,0\n");
    let latin = REQUESTS.replace("G0001", "é").bytes().filter(|byte| *byte != 0xc3).collect::<Vec<_>>();
    insta::assert_snapshot!(refusal(b""), @"requests.csv: the file is empty; want the request trace lora_request_trace.csv");
    insta::assert_snapshot!(refusal(b"\n\n"), @"requests.csv: the file is empty; want the request trace lora_request_trace.csv");
    insta::assert_snapshot!(refusal(header.as_bytes()), @"requests.csv: the file has a header but no rows; want the request trace lora_request_trace.csv");
    insta::assert_snapshot!(refusal(&latin), @"requests.csv, line 4, column groupId: the text is not UTF-8; save the file in that encoding");
    insta::assert_snapshot!(refusal(b"gmt_create,\xff\n"), @"requests.csv, line 1, column 2: the text is not UTF-8; save the file in that encoding");
    insta::assert_snapshot!(refusal(pending.as_bytes()), @"requests.csv: all requests are pending, so there is nothing to replay; want the request trace lora_request_trace.csv");
    let unknown = genai(&folder.path("unknown.csv"), &GenaiOptions::default());
    insta::assert_snapshot!(folder.refusal(unknown), @"cannot read unknown.csv: No such file or directory (os error 2)");
    let itself = openb(folder.0.path(), &folder.file("pods.csv", PODS));
    assert!(folder.refusal(itself).starts_with("cannot read "));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = Folder::new();
        prop_assert!(folder.genai(&bytes).is_err());
        prop_assert!(folder.openb(&bytes, PODS).is_err());
        prop_assert!(folder.openb(NODES, &bytes).is_err());
    }

    /// Damage behind a sound header gets further in; a result must be fit to be written and read.
    #[test]
    fn changed_bytes_never_panic(at in 0usize..500, bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        let folder = Folder::new();
        let damaged = |text: &str| {
            let at = at.min(text.len());
            let end = (at + bytes.len()).min(text.len());
            [&text.as_bytes()[..at], &bytes, &text.as_bytes()[end..]].concat()
        };
        let results = [
            folder.genai(damaged(REQUESTS)),
            folder.openb(damaged(NODES), PODS),
            folder.openb(NODES, damaged(PODS)),
        ];
        for imported in results.into_iter().flatten() {
            accepted(&imported);
        }
    }

    #[test]
    fn any_text_in_fields_never_panics(field in ".{0,12}", column in 0usize..11) {
        let folder = Folder::new();
        let put = |text: &str| {
            let quoted = format!("\"{}\"", field.replace('"', "\"\""));
            let line = |(index, line): (usize, &str)| {
                let mut fields: Vec<_> = line.split(',').map(str::to_owned).collect();
                if index == 1 && column < fields.len() {
                    fields[column] = quoted.clone();
                }
                fields.join(",") + "\n"
            };
            text.lines().enumerate().map(line).collect::<String>()
        };
        let results = [folder.genai(put(REQUESTS)), folder.openb(put(NODES), PODS), folder.openb(NODES, put(PODS))];
        for imported in results.into_iter().flatten() {
            accepted(&imported);
        }
    }
}
