//! CSV tables, read strictly: whatever is wrong is reported with line, column and remedy.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, StringRecord};

use super::ImportError;
use crate::time::MOST_S;

/// A CSV file with a header; every row has a field for each column, in UTF-8, on one line.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    header: Vec<String>,
    /// With the line on which each begins.
    rows: Vec<(usize, StringRecord)>,
}

/// A row with its surroundings, for reading fields by name.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    table: &'a Table,
    line: usize,
    fields: &'a StringRecord,
}

/// Names met so far, each with its line.
#[derive(Default)]
pub(super) struct Names(BTreeMap<String, usize>);

impl Table {
    /// Reads a file that must have the columns `wanted`, in any order and among others; `what` says
    /// in errors which file that would be.
    pub fn read(path: &Path, wanted: &[&str], what: &str) -> Result<Table, ImportError> {
        let failed = |source| ImportError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(failed)?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&bytes[..]);
        let mut lines = LineCounter { bytes: &bytes, at: 0, line: 1 };
        let mut table = Table { path: path.to_owned(), header: Vec::new(), rows: Vec::new() };
        for record in reader.byte_records() {
            let record = record.map_err(|error| failed(error.into()))?;
            let line = lines.line_of(&record);
            let record = table.text(line, record)?;
            if table.header.is_empty() {
                table.check_header(line, &record, wanted, what)?;
                table.header = record.iter().map(str::to_owned).collect();
            } else {
                table.check_row(line, &record)?;
                table.rows.push((line, record));
            }
        }
        if table.rows.is_empty() {
            let found = if table.header.is_empty() { "is empty" } else { "has a header but no rows" };
            return Err(ImportError::File {
                path: table.path,
                reason: format!("the file {found}; want {what}"),
            });
        }
        Ok(table)
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|(line, fields)| Row { table: self, line: *line, fields })
    }

    /// Something wrong with the file as a whole.
    pub fn wrong(&self, reason: impl Into<String>) -> ImportError {
        ImportError::File { path: self.path.clone(), reason: reason.into() }
    }

    fn wrong_line(&self, line: usize, reason: String) -> ImportError {
        ImportError::Line { path: self.path.clone(), line, reason }
    }

    /// An error in a column; before the header is read it goes by its number, from 1.
    fn wrong_field(&self, line: usize, index: usize, reason: impl Into<String>) -> ImportError {
        let column = self.header.get(index).cloned().unwrap_or_else(|| (index + 1).to_string());
        ImportError::Field { path: self.path.clone(), line, column, reason: reason.into() }
    }

    fn text(&self, line: usize, record: ByteRecord) -> Result<StringRecord, ImportError> {
        StringRecord::from_byte_record(record).map_err(|error| {
            let index = error.utf8_error().field();
            self.wrong_field(line, index, "the text is not UTF-8; save the file in that encoding")
        })
    }

    fn check_header(
        &self,
        line: usize,
        header: &StringRecord,
        wanted: &[&str],
        what: &str,
    ) -> Result<(), ImportError> {
        let times = |column: &str| header.iter().filter(|name| *name == column).count();
        let missing: Vec<_> = wanted.iter().copied().filter(|column| times(column) == 0).collect();
        if !missing.is_empty() {
            let reason = format!("the header lacks {}; want {what}", missing.join(", "));
            return Err(self.wrong_line(line, reason));
        }
        match wanted.iter().find(|column| times(column) > 1) {
            Some(column) => {
                Err(self.wrong_line(line, format!("the header has {column} twice; want it once")))
            }
            None => Ok(()),
        }
    }

    fn check_row(&self, line: usize, record: &StringRecord) -> Result<(), ImportError> {
        // An open quote takes in the lines after it, and in the last column nothing else would tell.
        if let Some(index) = record.iter().position(|field| field.contains(['\r', '\n'])) {
            return Err(self.wrong_field(line, index, "the field goes on over a line end; close its quote"));
        }
        let (found, wanted) = (record.len(), self.header.len());
        if found != wanted {
            let fields = if found == 1 { "field" } else { "fields" };
            return Err(self.wrong_line(line, format!("{found} {fields}, want {wanted} as in the header")));
        }
        Ok(())
    }
}

/// Tells on which line records begin.
///
/// The reader's own number is that of the line on which the record before ended, which is another
/// one after blank lines and, with CRLF line ends, always.
struct LineCounter<'a> {
    bytes: &'a [u8],
    /// Where the line count stands.
    at: usize,
    line: usize,
}

impl LineCounter<'_> {
    /// Line of a record that comes after those asked for before.
    fn line_of(&mut self, record: &ByteRecord) -> usize {
        let end_before = record.position().map_or(self.at, |position| position.byte() as usize);
        let ends = self.bytes[end_before..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let begin = end_before + ends.count();
        self.line += self.bytes[self.at..begin].iter().filter(|byte| **byte == b'\n').count();
        self.at = begin;
        self.line
    }
}

impl<'a> Row<'a> {
    /// A field as it stands.
    pub fn text(&self, column: &str) -> &'a str {
        &self.fields[self.index(column)]
    }

    /// A whole number within a range.
    pub fn whole(&self, column: &str, unit: &str, range: RangeInclusive<u32>) -> Result<u32, ImportError> {
        let value = self.text(column).parse().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            self.not(column, &format!("a whole number of {unit} from {from} to {to}"))
        })
    }

    /// A time or duration, seconds.
    pub fn seconds(&self, column: &str) -> Result<f64, ImportError> {
        self.number(column, "seconds", 0.0..=MOST_S)
    }

    /// A number within a range.
    pub fn number(&self, column: &str, unit: &str, range: RangeInclusive<f64>) -> Result<f64, ImportError> {
        // The range leaves out NaN and the infinities as well.
        let value = self.text(column).parse().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            self.not(column, &format!("a number of {unit} from {from} to {to}"))
        })
    }

    /// The error that a field is not what is wanted there.
    pub fn not(&self, column: &str, wanted: &str) -> ImportError {
        self.wrong(column, format!("{} is not {wanted}", quoted(self.text(column))))
    }

    pub fn wrong(&self, column: &str, reason: impl Into<String>) -> ImportError {
        self.table.wrong_field(self.line, self.index(column), reason)
    }

    fn index(&self, column: &str) -> usize {
        let index = self.table.header.iter().position(|name| name == column);
        index.expect("only columns that the header was checked for are asked for")
    }
}

impl Names {
    /// A field that no earlier row may have had; never empty.
    pub fn take(&mut self, row: &Row<'_>, column: &str) -> Result<String, ImportError> {
        let name = row.text(column);
        if name.is_empty() {
            return Err(row.not(column, "a name"));
        }
        match self.0.insert(name.to_owned(), row.line) {
            None => Ok(name.to_owned()),
            Some(line) => {
                Err(row.wrong(column, format!("{} is already on line {line}; want each once", quoted(name))))
            }
        }
    }
}

/// A field in an error message: in quotes, shortened where it is long.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
