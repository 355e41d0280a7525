//! The curves, as SVG: both axes logarithmic, every point drawn, on white so that they are read on any ground.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::plan::{Cost, Point, Shape};
use crate::report::name;

type Error = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const PANEL: (u32, u32) = (500, 420);
/// Below the panels: which line is which.
const LEGEND_LINE: u32 = 22;

/// A shape's colour: those of Okabe and Ito, which people with any kind of sight tell apart.
fn colour(shape: Shape) -> RGBColor {
    match shape {
        Shape::Tracker => RGBColor(0, 114, 178),
        Shape::Federation => RGBColor(213, 94, 0),
        Shape::Mesh => RGBColor(0, 140, 100),
    }
}

/// One line: the simulator's points joined, the real nodes' as rings.
struct Curve {
    label: String,
    shape: Shape,
    dashed: bool,
    simulated: Vec<(f64, f64)>,
    real: Vec<(f64, f64)>,
}

struct Panel {
    title: &'static str,
    x: &'static str,
    curves: Vec<Curve>,
}

/// A curve of each shape; what is `None` or nothing isn't drawn.
fn curves(points: &[Point], kind: &str, dashed: bool, of: impl Fn(&Point) -> Option<f64>) -> Vec<Curve> {
    let shapes = [Shape::Tracker, Shape::Federation, Shape::Mesh];
    let curve = |shape: Shape| {
        let its = points.iter().filter(|p| p.case.shape == shape);
        let trackers = its.clone().next()?.case.trackers;
        let values = |real: bool| -> Vec<(f64, f64)> {
            let these = its.clone().filter(|p| p.real == real);
            these.filter_map(|p| Some((p.case.nodes as f64, of(p).filter(|y| *y > 0.0)?))).collect()
        };
        let label = format!("{}: {kind}", name(shape, trackers));
        Some(Curve { label, shape, dashed, simulated: values(false), real: values(true) })
    };
    let all = shapes.into_iter().filter_map(curve);
    all.filter(|c| !c.simulated.is_empty() || !c.real.is_empty()).collect()
}

/// The powers of ten around all values.
fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min).max(1e-3);
    let most = values.fold(least, f64::max);
    // A little beyond, so that no point is cut at the edge.
    10f64.powf((least * 0.99).log10().floor())..10f64.powf((most * 1.01).log10().ceil())
}

/// A number as people write it on an axis.
fn short(value: f64) -> String {
    match value {
        v if v >= 999_999.0 => format!("{:.0}M", v / 1e6),
        v if v >= 999.0 => format!("{:.0}k", v / 1e3),
        v if v >= 0.999 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn draw(area: &Area, panel: &Panel) -> Result<(), Error> {
    let points = || panel.curves.iter().flat_map(|c| c.simulated.iter().chain(&c.real));
    // Sizes lie on powers of ten: half of one is added on both sides.
    let xs = points().map(|p| p.0);
    let x = xs.clone().fold(f64::INFINITY, f64::min) / 1.6..xs.fold(1.0, f64::max) * 1.6;
    let y = range(points().map(|p| p.1));
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 17))
        .margin(12)
        .margin_right(20)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(BLACK.mix(0.18))
        .light_line_style(BLACK.mix(0.05))
        .label_style(("sans-serif", 14))
        .x_desc(panel.x)
        .x_label_formatter(&|v| short(*v))
        .y_label_formatter(&|v| short(*v))
        .draw()?;
    for curve in &panel.curves {
        let colour = colour(curve.shape);
        let line = colour.stroke_width(2);
        if curve.dashed {
            chart.draw_series(DashedLineSeries::new(curve.simulated.iter().copied(), 7, 5, line))?;
        } else {
            chart.draw_series(LineSeries::new(curve.simulated.iter().copied(), line))?;
        }
        chart.draw_series(curve.simulated.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
        chart.draw_series(curve.real.iter().map(|p| Circle::new(*p, 6, line)))?;
    }
    Ok(())
}

/// Which line is which, in two columns.
fn legend(area: &Area, curves: &[&Curve]) -> Result<(), Error> {
    let text = |at: (i32, i32), what: &str| Text::new(what.to_owned(), at, ("sans-serif", 15));
    let column = area.dim_in_pixel().0 as i32 / 2;
    for (i, curve) in curves.iter().enumerate() {
        let (x, y) = (24 + column * (i as i32 % 2), 12 + LEGEND_LINE as i32 * (i as i32 / 2));
        let colour = colour(curve.shape);
        let ends = [(x, y), (x + 40, y)];
        if curve.dashed {
            for part in 0..4 {
                let from = x + part * 11;
                area.draw(&PathElement::new([(from, y), (from + 7, y)], colour.stroke_width(2)))?;
            }
        } else {
            area.draw(&PathElement::new(ends, colour.stroke_width(2)))?;
        }
        area.draw(&text((x + 50, y - 7), &curve.label))?;
    }
    let y = 12 + LEGEND_LINE as i32 * curves.len().div_ceil(2) as i32;
    area.draw(&Circle::new((44, y), 3, BLACK.filled()))?;
    area.draw(&text((74, y - 7), "simulated"))?;
    area.draw(&Circle::new((24 + column + 20, y), 6, BLACK.stroke_width(2)))?;
    area.draw(&text((24 + column + 50, y - 7), "real nodes, real sockets"))?;
    Ok(())
}

/// Panels side by side, and one legend for all of them.
fn file(path: PathBuf, panels: &[Panel]) -> Result<PathBuf, Error> {
    let mut named: Vec<&Curve> = Vec::new();
    for curve in panels.iter().flat_map(|p| &p.curves) {
        if !named.iter().any(|n| n.label == curve.label) {
            named.push(curve);
        }
    }
    let height = PANEL.1 + LEGEND_LINE * (named.len().div_ceil(2) as u32 + 1) + 12;
    {
        let root = SVGBackend::new(&path, (PANEL.0 * panels.len() as u32, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (above, below) = root.split_vertically(PANEL.1);
        for (area, panel) in above.split_evenly((1, panels.len())).iter().zip(panels) {
            draw(area, panel)?;
        }
        legend(&below, &named)?;
        root.present()?;
    }
    // No white space at line ends: it is a file for a repository.
    let text = fs::read_to_string(&path)?;
    fs::write(&path, text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>())?;
    Ok(path)
}

/// Two costs, in messages and in bytes.
/// What is drawn, and what it is called.
type Drawn<'a> = (&'a str, fn(&Point) -> Cost);

fn costs(points: &[Point], what: [Drawn<'_>; 2]) -> [Panel; 2] {
    let panel = |title, of: fn(Cost) -> f64| {
        let both = what.iter().enumerate();
        let curves = both.flat_map(|(i, (kind, cost))| curves(points, kind, i > 0, |p| Some(of(cost(p))))).collect();
        Panel { title, x: "nodes", curves }
    };
    [panel("messages in the whole mesh", |c| c.messages), panel("bytes in the whole mesh", |c| c.bytes)]
}

/// Draws all there is into a folder.
pub fn all(folder: &Path, by_nodes: &[Point], by_trackers: &[Point]) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(folder)?;
    let queries = costs(by_nodes, [("one node provides it", |p| p.rare), ("every node provides it", |p| p.common)]);
    let changes = costs(by_nodes, [("nobody is interested", |p| p.quiet), ("every node is interested", |p| p.wanted)]);
    let mut known = curves(by_nodes, "a node", false, |p| p.knowledge);
    known.extend(curves(by_nodes, "a tracker", true, |p| p.tracker_knowledge.map(|b| b as f64)));
    let memory = [
        Panel { title: "bytes kept to find others", x: "nodes", curves: known },
        Panel {
            title: "resident bytes of a real node, with its share of the trackers",
            x: "nodes",
            curves: curves(by_nodes, "a node", false, |p| p.resident),
        },
    ];
    let mut files = vec![
        file(folder.join("growth-queries.svg"), &queries)?,
        file(folder.join("growth-changes.svg"), &changes)?,
        file(folder.join("growth-memory.svg"), &memory)?,
    ];
    if by_trackers.len() > 1 {
        let as_x = |p: &Point| {
            let mut p = p.clone();
            (p.case.nodes, p.case.trackers) = (p.case.trackers, 0);
            p
        };
        let points: Vec<Point> = by_trackers.iter().map(as_x).collect();
        let named = |kind: &str, dashed, of: fn(&Point) -> f64| {
            let mut curves = curves(&points, kind, dashed, |p| Some(of(p)));
            curves.iter_mut().for_each(|c| c.label = kind.to_owned());
            curves
        };
        let mut lines = named("a change that nobody is interested in", false, |p| p.quiet.messages);
        lines.extend(named("a query for what every node provides", true, |p| p.common.messages));
        let panel = Panel { title: "messages in the whole mesh", x: "trackers, of 200 nodes", curves: lines };
        files.push(file(folder.join("growth-trackers.svg"), &[panel])?);
    }
    Ok(files)
}
