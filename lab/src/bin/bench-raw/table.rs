//! The figures of a run as a document has them: all of them, and what is asked beside what was measured.

use std::fmt::Write as _;

use super::contender::Contender;
use super::measure::Figures;

/// A row of the table.
pub type Row = (Contender, Figures);

/// What is asked of the program, as a multiple of the best of the other programs in the same run.
struct Demand {
    what: &'static str,
    asked: f64,
    /// More is better.
    of: fn(&Figures) -> f64,
}

const DEMANDS: [Demand; 6] = [
    Demand { what: "TCP, 1 stream", asked: 5.0, of: |figures| figures.tcp_one.mbit() },
    Demand { what: "TCP, 4 streams", asked: 5.0, of: |figures| figures.tcp_four.mbit() },
    Demand { what: "TCP, both ways", asked: 5.0, of: |figures| figures.tcp_both.mbit() },
    Demand {
        what: "bytes for a second of processor time",
        asked: 5.0,
        of: |f| 1.0 / f.tcp_one.cpu_per_gigabyte,
    },
    Demand { what: "UDP of 1200 bytes", asked: 2.0, of: |figures| figures.udp_1200 as f64 },
    Demand { what: "UDP of 64 bytes", asked: 2.0, of: |figures| figures.udp_64 as f64 },
];

/// Both tables, in Markdown.
pub fn report(rows: &[Row]) -> String {
    let mut text = figures(rows);
    if let Some(demands) = demands(rows) {
        text += "\n";
        text += &demands;
    }
    text
}

fn figures(rows: &[Row]) -> String {
    let mut text = String::from(
        "| | TCP, 1 stream | s/GB | 4 streams | s/GB | both ways | s/GB | UDP 1200, packets/s | UDP 64, packets/s \
         | resident, idle and at most |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (contender, figures) in rows {
        let [one, four, both] = [&figures.tcp_one, &figures.tcp_four, &figures.tcp_both];
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.1} | {:.0} | {:.1} | {:.0} + {:.0} | {:.1} | {} | {} | {:.1} MB, {:.1} MB |",
            contender.title(),
            one.mbit(),
            one.cpu_per_gigabyte,
            four.mbit(),
            four.cpu_per_gigabyte,
            both.forth as f64 / 1e6,
            both.back as f64 / 1e6,
            both.cpu_per_gigabyte,
            figures.udp_1200,
            figures.udp_64,
            megabytes(figures.resident_idle),
            megabytes(figures.resident_peak),
        );
    }
    text
}

/// `None` when there is nothing to compare with.
fn demands(rows: &[Row]) -> Option<String> {
    let others: Vec<&Figures> =
        rows.iter().filter(|(contender, _)| contender.is_peer()).map(|(_, f)| f).collect();
    let ours: Vec<&Row> = rows.iter().filter(|(contender, _)| contender.is_ours()).collect();
    if others.is_empty() || ours.is_empty() {
        return None;
    }
    let mut text = String::from("| of the better of the others | asked |");
    for (contender, _) in &ours {
        let _ = write!(text, " {} |", contender.title());
    }
    text += "\n| --- | ---: |";
    text += &" ---: |".repeat(ours.len());
    text += "\n";
    for demand in &DEMANDS {
        let best = others.iter().map(|figures| (demand.of)(figures)).fold(0.0, f64::max);
        let _ = write!(text, "| {} | × {:.0} |", demand.what, demand.asked);
        for (_, figures) in &ours {
            let times = (demand.of)(figures) / best;
            let mark = if times >= demand.asked { '✓' } else { '✗' };
            let _ = write!(text, " × {times:.1} {mark} |");
        }
        text += "\n";
    }
    Some(text)
}
