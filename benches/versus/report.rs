//! The table for people, and the JSON for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::Fault;
use crate::figures::{Figure, Row, Spread};

/// A figure with as many digits as mean something.
pub fn digits(figure: f64) -> String {
    let text = match figure.abs() {
        f if f >= 1000.0 => format!("{figure:.0}"),
        f if f >= 10.0 => format!("{figure:.1}"),
        f if f >= 0.1 || f == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    };
    // Thousands apart.
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (at, c) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && c.is_ascii_digit() && !out.ends_with('-') {
            out.push(',');
        }
        out.push(c);
    }
    out + rest
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |s| format!("{} ±{:.0}%", digits(s.median), s.percent()))
}

/// Prints a row as it is done.
pub fn print(row: &Row) {
    let compared = match row.figure {
        Figure::P50 => "p50",
        Figure::P99 => "p99",
        Figure::Rate => "rate",
        Figure::Cpu => "CPU time",
        Figure::Value => row.unit,
    };
    println!("\n{}: {} (compared by {compared})", row.name, row.about);
    let has = |figure| row.series.iter().any(|series| series.spread(figure).is_some());
    let columns = [
        (Figure::P50, "p50 µs".to_owned()),
        (Figure::P99, "p99 µs".to_owned()),
        (Figure::Rate, "per s".to_owned()),
        (Figure::Cpu, "CPU µs each".to_owned()),
        (Figure::Value, row.unit.to_owned()),
    ];
    let columns: Vec<_> = columns.into_iter().filter(|(figure, _)| has(*figure)).collect();
    print!("  {:<34}", "");
    for (_, title) in &columns {
        print!("{title:>18}");
    }
    for base in row.bases {
        print!("{:>26}", format!("÷ {base}"));
    }
    println!();
    for series in &row.series {
        print!("  {:<34}", series.name);
        for (figure, _) in &columns {
            print!("{:>18}", cell(series.spread(*figure)));
        }
        for base in row.bases {
            let ratio = row.ratio(row.figure, &series.name, base);
            let ratio = ratio.map(|r| format!("{:.2} ({:.2} to {:.2})", r.median, r.least, r.most));
            print!("{:>26}", ratio.unwrap_or_default());
        }
        println!();
    }
    for note in &row.notes {
        println!("  {note}");
    }
}

/// Writes all of it.
pub fn write(
    path: &Path,
    setting: &Value,
    rows: &[Row],
    failed: &[(&str, String)],
    checks: &Value,
) -> Result<(), Fault> {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    let failed: Vec<Value> = failed.iter().map(|(row, fault)| json!({ "row": row, "fault": fault })).collect();
    let all = json!({ "setting": setting, "rows": rows, "failed": failed, "numbers_to_reach": checks });
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(())
}
