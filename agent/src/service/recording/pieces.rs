//! A recording on the wire: text in pieces.

use remora_env::import::Imported;
use remora_env::trace::Trace;
use remora_proto::v1 as wire;
use wire::export_trace_response::Piece;

use crate::service::refusal::Refusal;

/// Bytes of a piece, about: far below what a client takes at a time.
const BYTES: usize = 256 << 10;

/// First the scenario, then the trace, then notes.
pub(crate) fn pieces(
    recording: Imported,
) -> Result<impl Iterator<Item = wire::ExportTraceResponse> + Send, Refusal> {
    let Imported { scenario, trace, notes } = recording;
    let unwritable = |error| Refusal::Broken(format!("the scenario cannot be written: {error}"));
    let scenario = toml::to_string(&scenario).map_err(unwritable)?;
    let pieces = cut(scenario).map(Piece::Scenario).chain(cut(trace.to_text()).map(Piece::Trace));
    let pieces = pieces.chain(notes.into_iter().map(Piece::Note));
    Ok(pieces.map(|piece| wire::ExportTraceResponse { piece: Some(piece) }))
}

/// A text in pieces that end where characters do.
fn cut(text: String) -> impl Iterator<Item = String> + Send {
    let mut at = 0;
    std::iter::from_fn(move || {
        let end = text.floor_char_boundary(at + BYTES);
        let piece = text.get(at..end).filter(|piece| !piece.is_empty())?.to_owned();
        at = end;
        Some(piece)
    })
}

/// Puts a recording together again.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    scenario: String,
    trace: String,
    notes: Vec<String>,
}

impl Pieces {
    pub fn add(&mut self, answer: wire::ExportTraceResponse) {
        match answer.piece {
            Some(Piece::Scenario(text)) => self.scenario.push_str(&text),
            Some(Piece::Trace(text)) => self.trace.push_str(&text),
            Some(Piece::Note(note)) => self.notes.push(note),
            None => {}
        }
    }

    /// # Errors
    /// When what came is no recording: the service is of another version.
    pub fn whole(self) -> anyhow::Result<Imported> {
        let scenario = toml::from_str(&self.scenario)?;
        let trace = Trace::parse(self.trace.as_bytes(), "of the service".as_ref())?;
        Ok(Imported { scenario, trace, notes: self.notes })
    }
}
