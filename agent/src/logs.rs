//! Logs on stderr, and traces over OTLP where the feature `otel` is on.

use std::io::IsTerminal;

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
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let guard = Guard::default();
    let logs = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    logs.with(guard.0.as_ref().map(otel::layer)).init();
    #[cfg(not(feature = "otel"))]
    logs.init();
    guard
}

/// Sends the last traces when dropped.
#[cfg(not(feature = "otel"))]
#[derive(Debug, Default)]
pub struct Guard;

/// Sends the last traces when dropped.
#[cfg(feature = "otel")]
#[derive(Debug)]
pub struct Guard(Option<opentelemetry_sdk::trace::SdkTracerProvider>);

#[cfg(feature = "otel")]
impl Default for Guard {
    fn default() -> Guard {
        Guard(otel::provider())
    }
}

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
