//! The wire contract as documents: a reference for people, and a list of what clients rely on. Both are written by the
//! tests, with `UPDATE=1`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MethodDescriptor};
use remora_proto::FILE_DESCRIPTOR_SET;

const PACKAGE: &str = "remora.v1";

fn ours() -> Vec<FileDescriptor> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    pool.files().filter(|file| file.package_name() == PACKAGE).collect()
}

fn path(document: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)
}

fn read(document: &str) -> String {
    std::fs::read_to_string(path(document)).unwrap_or_default()
}

/// The document is what it should be, or becomes it with `UPDATE=1`.
fn keep(document: &str, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path(document), text).unwrap();
    }
    let how = "UPDATE=1 cargo nextest run -p remora-agent contract:: writes it again";
    assert!(read(document) == text, "{document} is stale; {how}");
}

/// A name without the package.
fn short(name: &str) -> &str {
    name.strip_prefix(PACKAGE).map_or(name, |name| name.trim_start_matches('.'))
}

/// A field's type as .proto files write it; those that are described here through `link`.
fn kind(field: &FieldDescriptor, link: impl Fn(&str) -> String) -> String {
    let one = |kind: Kind| match kind {
        Kind::Message(message) => link(short(message.full_name())),
        Kind::Enum(values) => link(short(values.full_name())),
        plain => format!("{plain:?}").to_lowercase(),
    };
    if field.is_map()
        && let Kind::Message(entry) = field.kind()
    {
        let [key, value] = [entry.map_entry_key_field(), entry.map_entry_value_field()];
        return format!("map<{}, {}>", one(key.kind()), one(value.kind()));
    }
    let optional = field.field_descriptor_proto().proto3_optional();
    let before = if field.is_list() {
        "repeated "
    } else if optional {
        "optional "
    } else {
        ""
    };
    format!("{before}{}", one(field.kind()))
}

fn call(method: &MethodDescriptor, link: impl Fn(&str) -> String) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    let (input, output) = (method.input(), method.output());
    let [from, to] = [stream(method.is_client_streaming()), stream(method.is_server_streaming())];
    let [asked, answered] = [short(input.full_name()), short(output.full_name())].map(link);
    format!("{}({from}{asked}) returns ({to}{answered})", method.name())
}

/// One line for everything that a client's bytes or code depend on.
fn promises() -> Vec<String> {
    let plain = |name: &str| name.to_owned();
    let mut lines = Vec::new();
    for file in ours() {
        let pool = file.parent_pool();
        for message in pool.all_messages().filter(|of| of.parent_file() == file && !of.is_map_entry()) {
            let name = short(message.full_name()).to_owned();
            let line = |field: FieldDescriptor| {
                format!("{name}.{} = {} {}", field.name(), field.number(), kind(&field, plain))
            };
            lines.extend(message.fields().map(line));
        }
        for of in pool.all_enums().filter(|of| of.parent_file() == file) {
            let name = short(of.full_name()).to_owned();
            lines.extend(of.values().map(|value| format!("{name}.{} = {}", value.name(), value.number())));
        }
        for service in file.services() {
            let line = |method: MethodDescriptor| format!("{}.{}", service.name(), call(&method, plain));
            lines.extend(service.methods().map(line));
        }
    }
    lines.sort();
    lines
}

/// Who was compiled against an earlier contract is understood by a service of today.
#[test]
fn nothing_that_clients_rely_on_is_gone_or_changed() {
    const DOCUMENT: &str = "proto/contract.txt";
    let promises = promises();
    let broken: Vec<_> = read(DOCUMENT)
        .lines()
        .filter(|line| promises.binary_search_by(|promise| promise.as_str().cmp(line)).is_err())
        .map(str::to_owned)
        .collect();
    assert!(
        broken.is_empty(),
        "clients rely on what the .proto files no longer say; a field or a call that is no longer used stays, and what \
         replaces it has a new name and number:\n{}\n(before the first release, remove these lines from {DOCUMENT})",
        broken.join("\n")
    );
    keep(DOCUMENT, &(promises.join("\n") + "\n"));
}

/// Comments by the paths of what they stand before.
fn comments(file: &FileDescriptor) -> BTreeMap<Vec<i32>, String> {
    let info = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
    let comment = |text: String| text.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned();
    info.location.into_iter().filter_map(|at| Some((at.path, comment(at.leading_comments?)))).collect()
}

/// A comment in the cell of a table.
fn cell(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs
        .collect::<Vec<_>>()
        .join("<br>")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace("&lt;br>", "<br>")
}

fn reference() -> String {
    let anchor = |name: &str| format!("[{name}](#{})", name.to_lowercase().replace('.', ""));
    let (mut services, mut messages) = (String::new(), String::new());
    for file in ours() {
        let comments = comments(&file);
        let said = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
        for service in file.services() {
            services += &format!("## {}\n\n{}\n\n", service.name(), said(service.path()));
            for method in service.methods() {
                let comment = said(method.path());
                // Lines with what is refused become a list.
                let comment = comment.split('\n').map(|line| match line.split_once(": ") {
                    Some((code, _))
                        if code.len() > 3 && code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_') =>
                    {
                        format!("- {line}")
                    }
                    _ => line.to_owned(),
                });
                let comment = comment.collect::<Vec<_>>().join("\n");
                services += &format!("### {}\n\n{}\n\n{comment}\n\n", method.name(), call(&method, anchor));
            }
        }
        let pool = file.parent_pool();
        for message in pool.all_messages().filter(|of| of.parent_file() == file && !of.is_map_entry()) {
            let name = short(message.full_name());
            messages += &format!("### {name}\n\n{}\n\n", said(message.path()));
            if message.fields().len() > 0 {
                messages += "| field | type | |\n|---|---|---|\n";
            }
            for field in message.fields() {
                let (kind, said) = (kind(&field, anchor), cell(&said(field.path())));
                messages += &format!("| `{}` | {kind} | {said} |\n", field.name());
            }
            messages += "\n";
        }
        for of in pool.all_enums().filter(|of| of.parent_file() == file) {
            messages +=
                &format!("### {}\n\n{}\n\n| value | |\n|---|---|\n", short(of.full_name()), said(of.path()));
            for value in of.values() {
                messages += &format!("| `{}` | {} |\n", value.name(), cell(&said(value.path())));
            }
            messages += "\n";
        }
    }
    let text = format!(
        "# The API\n\nPackage `{PACKAGE}`, made from the comments in [proto/proto/remora/v1](../proto/proto/remora/v1). Every \
         method is answered over gRPC; who may call it says [service.md](service.md).\n\n{services}## Messages\n\n{messages}"
    );
    let mut lines = Vec::new();
    for line in text.lines() {
        if !(line.is_empty() && lines.last().is_some_and(|last: &&str| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n").trim_end().to_owned() + "\n"
}

#[test]
fn the_reference_says_what_the_files_say() {
    keep("docs/api.md", &reference());
}
