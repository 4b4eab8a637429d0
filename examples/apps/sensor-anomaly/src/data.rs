//! Series of sensor readings, read strictly, and the windows that they are cut into.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Of so many windows, the last is never learnt from: models are judged on these alone.
pub const HELD_OUT_EVERY: usize = 5;

/// Windows of a series, by use.
#[derive(Debug)]
pub struct Split<'a> {
    pub learnt: Vec<&'a [f32]>,
    pub held_out: Vec<&'a [f32]>,
}

/// Readings beyond this are broken sensors or wrong units.
const MOST: f64 = 1e12;

/// A CSV file: a column for each channel, a row for each moment, in even steps of time.
#[derive(Debug)]
pub struct Series {
    path: PathBuf,
    /// In alphabetical order, whatever their order in the file.
    pub channels: Vec<String>,
    /// Row by row.
    values: Vec<f32>,
}

impl Series {
    /// Reads a file; an error names line, column and what would be right.
    pub fn read(path: &Path) -> Result<Series> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Series::parse(path, &text).with_context(|| path.display().to_string())
    }

    /// All files of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<Series>> {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.with_context(|| format!("cannot read the folder {}", folder.display()))?;
        let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        ensure!(!paths.is_empty(), "{} has no data files; want one CSV file at least", folder.display());
        paths.iter().map(|path| Series::read(path)).collect()
    }

    fn parse(path: &Path, text: &str) -> Result<Series> {
        let mut lines = text.trim_start_matches('\u{feff}').trim_end().lines().zip(1..);
        let (header, _) = lines.next().context("the file is empty; want a header with channels")?;
        let header: Vec<&str> = fields(header).collect();
        // Column of each channel, channels in alphabetical order.
        let mut order: Vec<usize> = (0..header.len()).collect();
        order.sort_by_key(|&column| header[column]);
        if let Some(column) = header.iter().position(|name| name.is_empty()) {
            bail!("line 1, column {}: the header has no name there; want one for each channel", column + 1);
        }
        if let Some(twice) = order.windows(2).find(|pair| header[pair[0]] == header[pair[1]]) {
            bail!("line 1: the header has {:?} twice; want each channel once", header[twice[0]]);
        }

        let mut values = Vec::new();
        for (line, number) in lines {
            let row: Vec<&str> = fields(line).collect();
            let (found, wanted) = (row.len(), header.len());
            ensure!(found == wanted, "line {number}: {found} fields, want {wanted} as in the header");
            for &column in &order {
                let value = row[column].parse().ok().filter(|value: &f64| value.abs() <= MOST);
                let value = value.with_context(|| {
                    let (name, field) = (header[column], row[column]);
                    format!("line {number}, column {name}: {field:?} is no reading; want a number up to 1e12")
                })?;
                values.push(value as f32);
            }
        }
        ensure!(!values.is_empty(), "the file has a header but no rows");
        let channels = order.iter().map(|&column| header[column].to_owned()).collect();
        Ok(Series { path: path.to_owned(), channels, values })
    }

    /// Refuses a series of other channels than `known`; `whose` they are goes into the error.
    pub fn expect_channels(&self, known: &[String], whose: &str) -> Result<()> {
        let (path, ours, theirs) = (self.path.display(), self.channels.join(", "), known.join(", "));
        ensure!(self.channels == known, "{path}: the channels are {ours}; {whose} has {theirs}");
        Ok(())
    }

    fn rows(&self) -> usize {
        self.values.len() / self.channels.len()
    }

    /// First rows of windows side by side that cover all rows; the last may overlap the one before.
    pub fn tiles(&self, window: usize) -> Result<Vec<usize>> {
        let (path, rows) = (self.path.display(), self.rows());
        ensure!(rows >= window, "{path}: {rows} rows, want {window} at least, as long as a window");
        let aligned = (0..=rows - window).step_by(window);
        Ok(if rows % window == 0 { aligned.collect() } else { aligned.chain([rows - window]).collect() })
    }

    /// The `window` rows from `first` on.
    pub fn window(&self, first: usize, window: usize) -> &[f32] {
        let channels = self.channels.len();
        &self.values[first * channels..(first + window) * channels]
    }

    /// Windows to learn from and windows held out. They share no row: what is learnt from are windows at every
    /// quarter of their length, between those held out.
    pub fn split(&self, window: usize) -> Result<Split<'_>> {
        let (path, rows, block) = (self.path.display(), self.rows(), HELD_OUT_EVERY * window);
        ensure!(rows >= block, "{path}: {rows} rows, want {block} at least: {HELD_OUT_EVERY} windows");
        let (mut learnt, mut held_out) = (Vec::new(), Vec::new());
        for begin in (0..rows).step_by(block) {
            let kept = begin + block - window;
            if kept + window <= rows {
                held_out.push(self.window(kept, window));
            }
            let firsts =
                (begin..).step_by(window.div_ceil(4)).take_while(|first| first + window <= kept.min(rows));
            learnt.extend(firsts.map(|first| self.window(first, window)));
        }
        Ok(Split { learnt, held_out })
    }
}

/// Fields of a line; quotes around them are taken off, for writers that quote all.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"'))
}
