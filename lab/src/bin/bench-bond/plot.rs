//! Rates and queues over time, as a picture.

use std::io;
use std::path::Path;

use plotters::prelude::*;

use crate::changes::Trace;

/// Told apart by all eyes (Okabe and Ito's palette).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Draws the rate of TCP and of each line above, and the lines' queues below.
pub fn draw(path: &Path, title: &str, trace: &Trace) -> io::Result<()> {
    paint(path, title, trace).map_err(|error| io::Error::other(error.to_string()))
}

fn paint(path: &Path, title: &str, trace: &Trace) -> Result<(), Box<dyn std::error::Error>> {
    let looks = || 0..trace.time.len();
    let end = trace.time.last().copied().unwrap_or(1.0);
    let rates: Vec<Vec<(f64, f64)>> = (0..trace.lines.len())
        .map(|line| looks().map(|at| (trace.time[at], trace.line_rate(line, at) / 1e6)).collect())
        .collect();
    let goodput: Vec<(f64, f64)> = looks().map(|at| (trace.time[at], trace.goodput_rate(at) / 1e6)).collect();
    let highest = |series: &[(f64, f64)]| series.iter().map(|point| point.1).fold(1.0, f64::max);
    let top = 1.25 * rates.iter().map(|rate| highest(rate)).fold(highest(&goodput), f64::max);
    let queues: Vec<Vec<(f64, f64)>> =
        trace.lines.iter().map(|line| looks().map(|at| (trace.time[at], line[at].1)).collect()).collect();
    let deepest = 1.1 * queues.iter().map(|queue| highest(queue)).fold(20.0, f64::max);

    let colour = |line: usize| COLOURS[line % COLOURS.len()];
    let root = SVGBackend::new(path, (900, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 20))?;
    let (upper, lower) = root.split_vertically(340);

    let mut chart = ChartBuilder::on(&upper)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().y_desc("Mbit/s").light_line_style(TRANSPARENT).draw()?;
    chart
        .draw_series(LineSeries::new(goodput, BLACK.stroke_width(2)))?
        .label("TCP payload")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.stroke_width(2)));
    for (line, rate) in rates.into_iter().enumerate() {
        chart
            .draw_series(LineSeries::new(rate, colour(line).stroke_width(2)))?
            .label(format!("line {}", line + 1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour(line).stroke_width(2)));
    }
    for (at, what) in &trace.marks {
        let style = BLACK.mix(0.5);
        chart.draw_series([PathElement::new([(*at, 0.0), (*at, top)], style)])?;
        chart.draw_series([Text::new(what.clone(), (*at + 0.05, 0.98 * top), ("sans-serif", 14))])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;

    let mut chart = ChartBuilder::on(&lower)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..deepest)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("queue in the modem, ms")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (line, queue) in queues.into_iter().enumerate() {
        chart.draw_series(LineSeries::new(queue, colour(line).stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}
