//! What a run shows in TensorBoard.

use std::path::Path;

use plotters::prelude::{BitMapBackend, Circle, IntoDrawingArea, LineSeries};
use plotters::style::{Color, RGBColor, WHITE};
use protobuf::well_known_types::{Value, Value_oneof_kind};
use protobuf::{Message, RepeatedField};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionStartInfo};
use tensorboard_proto::summary::{Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_rs::summary_writer::{FileWriter, SummaryWriter};

/// A run's event files.
pub struct Board(SummaryWriter);

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Board")
    }
}

/// Bars of a histogram.
const BARS: usize = 40;
/// Pixels of an image, both ways: the writer mistakes width for height.
const SIDE: u32 = 320;

impl Board {
    /// Event files in a folder. `hyperparameters` go into a folder in it, for the page of that name;
    /// two writers on one folder would overwrite each other.
    pub fn new(folder: &Path, hyperparameters: &serde_json::Value) -> Board {
        let mut writer = FileWriter::new(folder.join("hparams"));
        writer.add_summary(start(hyperparameters), 0);
        writer.flush();
        Board(SummaryWriter::new(folder))
    }

    /// One point of a curve.
    pub fn scalar(&mut self, tag: &str, value: f64, step: u64) {
        self.0.add_scalar(tag, value as f32, step as usize);
    }

    /// How values are spread; nothing where there are none.
    pub fn histogram(&mut self, tag: &str, values: impl Iterator<Item = f32> + Clone, step: u64) {
        let (mut least, mut greatest, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        let (mut sum, mut squares) = (0.0, 0.0);
        for value in values.clone().map(f64::from) {
            least = value.min(least);
            greatest = value.max(greatest);
            count += 1.0;
            sum += value;
            squares += value * value;
        }
        if count == 0.0 {
            return;
        }
        let width = ((greatest - least) / BARS as f64).max(1e-9);
        let limits: Vec<f64> = (1..=BARS).map(|bar| least + width * bar as f64).collect();
        let mut counts = vec![0.0; BARS];
        for value in values {
            let bar = ((f64::from(value) - least) / width) as usize;
            counts[bar.min(BARS - 1)] += 1.0;
        }
        let step = step as usize;
        self.0.add_histogram_raw(tag, least, greatest, count, sum, squares, &limits, &counts, step);
    }

    /// Points on the way from response time to data moved, each over the reference, of a policy (blue) and of
    /// its opponent (orange), from 0 both ways.
    pub fn front(&mut self, tag: &str, ours: &[(f64, f64)], theirs: &[(f64, f64)], step: u64) {
        let image = draw(ours, theirs);
        self.0.add_image(tag, &image, &[3, SIDE as usize, SIDE as usize], step as usize);
    }

    /// Writes what was added; what is not flushed is lost.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// RGB, row by row.
fn draw(ours: &[(f64, f64)], theirs: &[(f64, f64)]) -> Vec<u8> {
    let mut pixels = vec![0; (SIDE * SIDE * 3) as usize];
    let all = || ours.iter().chain(theirs);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(1e-9, f64::max) * 1.05;
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (SIDE, SIDE)).into_drawing_area();
        let fine = "a plot in memory cannot fail";
        area.fill(&WHITE).expect(fine);
        let mut chart = plotters::chart::ChartBuilder::on(&area)
            .margin(12)
            .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))
            .expect(fine);
        for (points, colour) in [(theirs, RGBColor(230, 159, 0)), (ours, RGBColor(0, 114, 178))] {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour)).expect(fine);
            chart
                .draw_series(points.iter().map(|&point| Circle::new(point, 4, colour.filled())))
                .expect(fine);
        }
        area.present().expect(fine);
    }
    pixels
}

/// The event that TensorBoard's page of hyper-parameters begins a run with.
fn start(hyperparameters: &serde_json::Value) -> Summary {
    let mut info = SessionStartInfo::new();
    let mut flat = Vec::new();
    flatten("", hyperparameters, &mut flat);
    info.set_hparams(flat.into_iter().collect());
    let mut data = HParamsPluginData::new();
    data.set_session_start_info(info);
    let mut plugin = SummaryMetadata_PluginData::new();
    plugin.set_plugin_name("hparams".to_owned());
    plugin.set_content(data.write_to_bytes().expect("a message in memory can be written"));
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(plugin);
    let mut value = Summary_Value::new();
    value.set_tag("_hparams_/session_start_info".to_owned());
    value.set_metadata(metadata);
    let mut summary = Summary::new();
    summary.set_value(RepeatedField::from(vec![value]));
    summary
}

/// Numbers, words and switches of a tree, by their paths.
fn flatten(path: &str, tree: &serde_json::Value, flat: &mut Vec<(String, Value)>) {
    use serde_json::Value as Json;
    let kind = match tree {
        Json::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, field, flat);
            }
            return;
        }
        Json::Number(number) => Value_oneof_kind::number_value(number.as_f64().unwrap_or(f64::NAN)),
        Json::Bool(switch) => Value_oneof_kind::bool_value(*switch),
        Json::String(word) => Value_oneof_kind::string_value(word.clone()),
        Json::Array(_) => Value_oneof_kind::string_value(tree.to_string()),
        Json::Null => return,
    };
    let value = Value { kind: Some(kind), ..Value::default() };
    flat.push((path.to_owned(), value));
}
