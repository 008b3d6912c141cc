//! `verify`: the sums that prove every event accounted for.

use bellwire_schemas::api::{BindingSum, SourceSum, Verification};
use clap::Args;
use serde_json::json;

use crate::cli::Context;
use crate::cli::client::Reply;
use crate::cli::exit::{Answer, Exit};
use crate::cli::text::{Paint, Style, clean};
use crate::cli::times::count;

/// Flags of `verify`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bellwire verify\n\nExit code 1: there is a gap.")]
pub struct VerifyArgs {}

/// Runs the command.
pub async fn run(context: &Context, _: VerifyArgs) -> Answer {
    let out = &context.out;
    let found: Reply<Verification> = context.client()?.post("/v1/verifications", &json!({})).await?;
    if out.json {
        out.body(&found.body)?;
    } else {
        render(&found.value, out.paint).iter().try_for_each(|line| out.line(line))?;
    }
    Ok(if found.value.complete { Exit::Done } else { Exit::No })
}

fn render(proof: &Verification, paint: Paint) -> Vec<String> {
    let names = proof
        .sources
        .iter()
        .map(|s| s.source.as_str())
        .chain(proof.bindings.iter().map(|b| b.binding.as_str()));
    let width = names.map(|name| clean(name).chars().count()).max().unwrap_or(0);
    let mut lines: Vec<_> = proof.sources.iter().map(|sum| source(sum, width)).collect();
    for sum in &proof.bindings {
        lines.push(binding(sum, width));
        if sum.gap != 0 {
            let number = count(sum.gap.unsigned_abs());
            let what = if sum.gap > 0 {
                "events have no outcome and are not owed"
            } else {
                "outcomes more than events"
            };
            lines.push(format!(
                "  {} {number} {what} on {}",
                paint.style(Style::Red, "GAP"),
                clean(sum.binding.as_str())
            ));
        }
    }
    lines.push(if proof.complete {
        paint.style(Style::Green, "every event is accounted for").into_owned()
    } else {
        paint.style(Style::Red, "not every event is accounted for").into_owned()
    });
    lines
}

fn source(sum: &SourceSum, width: usize) -> String {
    let name = clean(sum.source.as_str());
    let (received, accepted) = (count(sum.received), count(sum.accepted));
    let (duplicate, quarantined) = (count(sum.duplicate), count(sum.quarantined));
    format!(
        "source   {name:<width$}  received {received} = accepted {accepted} + duplicate {duplicate} + quarantined {quarantined}"
    )
}

fn binding(sum: &BindingSum, width: usize) -> String {
    let parts = [
        ("delivered", sum.delivered),
        ("filtered", sum.filtered),
        ("expired", sum.expired),
        ("dead", sum.dead),
        ("discarded", sum.discarded),
        ("owed", sum.owed),
    ];
    let sums: Vec<_> = parts.iter().map(|(word, number)| format!("{word} {}", count(*number))).collect();
    let sign = if sum.gap == 0 { "=" } else { "≠" };
    let name = clean(sum.binding.as_str());
    format!("binding  {name:<width$}  accepted {} {sign} {}", count(sum.accepted), sums.join(" + "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_said_aloud() {
        let mut sum = BindingSum {
            binding: "price:orders".into(),
            accepted: 1_204,
            delivered: 1_190,
            filtered: 10,
            expired: 0,
            dead: 1,
            discarded: 0,
            owed: 3,
            gap: 0,
        };
        let source = SourceSum {
            source: "orders".into(),
            received: 1_205,
            accepted: 1_204,
            duplicate: 0,
            quarantined: 1,
        };
        let proof = |sum: &BindingSum| Verification {
            complete: sum.gap == 0,
            sources: vec![source.clone()],
            bindings: vec![sum.clone()],
        };
        let expected = [
            "source   orders        received 1,205 = accepted 1,204 + duplicate 0 + quarantined 1",
            "binding  price:orders  accepted 1,204 = delivered 1,190 + filtered 10 + expired 0 + dead 1 + discarded 0 + owed 3",
            "every event is accounted for",
        ];
        assert_eq!(render(&proof(&sum), Paint(false)), expected);
        (sum.owed, sum.gap) = (0, 3);
        let lines = render(&proof(&sum), Paint(false));
        assert_eq!(lines[2], "  GAP 3 events have no outcome and are not owed on price:orders");
        assert_eq!(lines[3], "not every event is accounted for");
    }
}
