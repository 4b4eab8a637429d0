//! Logs on stderr, and traces over OTLP where the feature `otel` is on.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object per line, for machines.
    Json,
}

/// Writes what is logged from now on, as `RUST_LOG` says, or else what is worth knowing of a service.
pub fn start(format: Format) -> Guard {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,remora_agent=info"));
    let lines = fmt::layer().with_writer(|| Veiled).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let logs = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    {
        let provider = otel::provider();
        logs.with(provider.as_ref().map(otel::layer)).init();
        Guard(provider)
    }
    #[cfg(not(feature = "otel"))]
    {
        logs.init();
        Guard
    }
}

/// Where lines go, without the secrets of tokens that somebody put where they are logged.
struct Veiled;

const TOKEN: &[u8] = b"rmr_";

impl Write for Veiled {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&veil(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The text with the rest of every token left out.
fn veil(text: &[u8]) -> Vec<u8> {
    let mut veiled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(TOKEN.len()).position(|window| window == TOKEN) {
        veiled.extend_from_slice(&rest[..at + TOKEN.len()]);
        veiled.extend_from_slice("…".as_bytes());
        rest = &rest[at + TOKEN.len()..];
        let end = rest.iter().position(|&byte| !(byte.is_ascii_alphanumeric() || byte == b'_'));
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    veiled.extend_from_slice(rest);
    veiled
}

/// Sends the last traces when dropped.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
pub struct Guard;

/// Sends the last traces when dropped.
#[cfg(feature = "otel")]
#[derive(Debug)]
pub struct Guard(Option<opentelemetry_sdk::trace::SdkTracerProvider>);

#[cfg(feature = "otel")]
impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown()
        {
            eprintln!("the last traces were not sent: {error}");
        }
    }
}

#[cfg(feature = "otel")]
mod otel {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::SpanExporter;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Subscriber;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::registry::LookupSpan;

    /// Sends to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; nothing where it says nothing.
    pub fn provider() -> Option<SdkTracerProvider> {
        let asked = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        asked.iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))?;
        let exporter = SpanExporter::builder().with_tonic().build();
        let exporter = exporter.inspect_err(|error| eprintln!("traces are not sent: {error}")).ok()?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("remora");
        }
        Some(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.build())
                .build(),
        )
    }

    /// Spans of requests become traces, whatever the lines on stderr leave out.
    pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let spans = Targets::new().with_target("remora_agent", tracing::Level::DEBUG);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("remora")).with_filter(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::veil;

    #[test]
    fn tokens_are_left_out_wherever_they_are() {
        let veiled = |text: &str| String::from_utf8(veil(text.as_bytes())).unwrap();
        assert_eq!(veiled("\"Bearer rmr_0a_1b\", x rmr_2c_3d"), "\"Bearer rmr_…\", x rmr_…");
        assert_eq!(veiled("no token, rm r_"), "no token, rm r_");
        assert_eq!(veiled("rmr_rmr_1"), "rmr_…");
    }
}
