//! `/metrics` in the text format of Prometheus, and `/healthz`.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use dinov2_io::{LiveStats, Quantiles};

use crate::shared::{Shared, lock};

/// `200 ok` while frames arrive, else 503 with the reason.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let trouble = lock(&shared.health).trouble();
    match trouble {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let stats = lock(&shared.health).stats().cloned().unwrap_or_default();
    let text = exposition(&stats, shared.clients());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The text exposition format 0.0.4 of Prometheus.
fn exposition(stats: &LiveStats, clients: usize) -> String {
    let mut text = String::new();
    let seconds = |ms: &Quantiles| {
        [("0.5", ms.p50), ("0.95", ms.p95), ("0.99", ms.p99)].map(|(q, ms)| (label("quantile", q), ms / 1e3))
    };
    let alone = |value: f64| [(String::new(), value)];
    family(&mut text, "frames_total", "counter", "Frames with features.", alone(stats.frames as f64));
    family(&mut text, "fps", "gauge", "Recent frames with features per second.", alone(stats.fps));
    let help = "Recent time from capture to features.";
    family(&mut text, "latency_seconds", "summary", help, seconds(&stats.latency_ms));
    let help = "Recent time in the engine.";
    family(&mut text, "extract_seconds", "summary", help, seconds(&stats.extract_ms));
    let (drops, losses) = (stats.drops, stats.losses);
    let reasons = [
        ("engine_busy", drops.engine_busy),
        ("sink_busy", drops.sink_busy),
        ("rate_limit", drops.rate_limit),
        ("stale", losses.stale),
        ("missed", losses.missed),
        ("corrupt", losses.corrupt),
    ];
    let reasons = reasons.map(|(reason, count)| (label("reason", reason), count as f64));
    family(&mut text, "dropped_total", "counter", "Frames without features, by reason.", reasons);
    let help = "Number of times that a source was reopened.";
    family(&mut text, "source_reopened_total", "counter", help, alone(losses.reopened as f64));
    family(&mut text, "uptime_seconds", "gauge", "Time since the run began.", alone(stats.uptime_s));
    if let Some(celsius) = stats.temperature_c {
        family(
            &mut text,
            "temperature_celsius",
            "gauge",
            "Temperature of the hottest thermal zone.",
            alone(celsius),
        );
    }
    if let Some(throttled) = stats.throttled {
        let help = "1 while the processor is throttled because of heat.";
        family(&mut text, "throttled", "gauge", help, alone(f64::from(u8::from(throttled))));
    }
    let help = "Active streams, sockets and snapshots of the live page.";
    family(&mut text, "view_clients", "gauge", help, alone(clients as f64));
    text
}

/// One metric: help, type and a line per set of labels.
fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    push(text, format_args!("# HELP dinov2_{name} {help}\n# TYPE dinov2_{name} {kind}\n"));
    for (labels, value) in samples {
        push(text, format_args!("dinov2_{name}{labels} {}\n", Number(value)));
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing into a string does not fail");
}

/// A number in the syntax of Go's `strconv.ParseFloat`, as the format requires.
struct Number(f64);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => value.fmt(f),
        }
    }
}
