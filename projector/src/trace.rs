//! The traces that requests began, going on where their events become rows.

use tracing::Span;

use crate::{batch::Batch, lanes::Move};

/// Spans made for one batch at most.
const MOST_SPANS: usize = 64;

/// Spans that continue the traces in which events of the batch began, as far as these are sampled. They end when they
/// are dropped.
pub(crate) fn spans(batch: &Batch, plans: &[(usize, Vec<Move>)]) -> Vec<Span> {
    let passed =
        |index: usize| plans.iter().flat_map(|(_, moves)| moves).any(|its| its.passes.binary_search(&index).is_ok());
    let sampled = batch.iter().enumerate().filter_map(|(index, item)| {
        let envelope = &item.content.as_ref().ok()?.envelope;
        let traceparent = envelope.metadata.traceparent.as_deref().filter(|it| is_sampled(it))?;
        let span = || {
            tracing::info_span!(
                "project",
                event = envelope.name,
                event_id = %envelope.event_id,
                position = envelope.position,
            )
        };
        let span = passed(index).then(span)?;
        platform::telemetry::continue_trace(&span, traceparent);
        Some(span)
    });
    sampled.take(MOST_SPANS).collect()
}

/// The last bit of the flags (W3C Trace Context, 3.2.2.5).
fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}
