//! A report: named figures in rows, printed as tables or as one JSON document.

use std::fmt;

use serde_json::{Map, Value, json};

/// What a benchmark found.
#[derive(Debug, Default)]
pub struct Report {
    machine: String,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    key: &'static str,
    title: &'static str,
    rows: Vec<Row>,
}

/// One line of a table: a name, and figures by their stable keys.
#[derive(Debug)]
pub struct Row {
    name: String,
    figures: Vec<(&'static str, f64)>,
}

impl Report {
    /// An empty report that names the machine by its number of cores.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { machine: format!("{cores} cores"), tables: Vec::new() }
    }

    /// Adds a table: its stable key for machines, its title for people.
    pub fn table(&mut self, key: &'static str, title: &'static str, rows: Vec<Row>) {
        self.tables.push(Table { key, title, rows });
    }

    /// The report as a JSON document.
    pub fn json(&self) -> String {
        let tables: Map<String, Value> = self
            .tables
            .iter()
            .map(|Table { key, rows, .. }| {
                let rows = rows.iter().map(|row| {
                    let mut figures: Map<_, _> = row
                        .figures
                        .iter()
                        .map(|(key, value)| ((*key).to_string(), json!(round(*value))))
                        .collect();
                    figures.insert("case".into(), row.name.clone().into());
                    Value::Object(figures)
                });
                ((*key).to_string(), rows.collect())
            })
            .collect();
        serde_json::to_string_pretty(&json!({"machine": self.machine, "tables": tables})).unwrap_or_default()
    }
}

impl Row {
    /// A row.
    pub fn new(name: impl Into<String>, figures: Vec<(&'static str, f64)>) -> Self {
        Self { name: name.into(), figures }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "measured on {}", self.machine)?;
        for Table { title, rows, .. } in &self.tables {
            let Some(first) = rows.first() else { continue };
            write!(f, "\n{title:<34}")?;
            for (key, _) in &first.figures {
                write!(f, " {key:>16}")?;
            }
            writeln!(f)?;
            for row in rows {
                write!(f, "{:<34}", row.name)?;
                for (_, value) in &row.figures {
                    write!(f, " {:>16}", round(*value))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// Three digits are all that a noisy machine can say.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    let factor = 10_f64.powi(digits.clamp(-12, 12));
    (value * factor).round() / factor
}

/// The value below which the given share of the samples lies; sorts them.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    samples.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
