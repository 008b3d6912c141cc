//! A report: named figures in rows, printed as tables or as one JSON document.

use std::fmt;

use serde_json::{Map, Value, json};

/// What a benchmark found.
#[derive(Debug, Default)]
pub struct Report {
    machine: String,
    settings: Vec<(String, String)>,
    figures: Vec<(&'static str, f64)>,
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
        Self { machine: format!("{cores} cores"), ..Self::default() }
    }

    /// Notes a setting under which the figures were found.
    pub fn setting(&mut self, name: String, value: String) {
        self.settings.push((name, value));
    }

    /// Adds a figure that stands for the run as a whole; its stable key is at the top of the JSON document.
    pub fn figure(&mut self, key: &'static str, value: f64) {
        self.figures.push((key, value));
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
        let mut document: Map<String, Value> =
            self.figures.iter().map(|(key, value)| ((*key).to_string(), json!(round(*value)))).collect();
        document.insert("machine".into(), self.machine.clone().into());
        if !self.settings.is_empty() {
            let settings = self.settings.iter().map(|(name, value)| (name.clone(), value.clone().into()));
            document.insert("settings".into(), Value::Object(settings.collect()));
        }
        document.insert("tables".into(), Value::Object(tables));
        serde_json::to_string_pretty(&document).unwrap_or_default()
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
        for (name, value) in &self.settings {
            writeln!(f, "  {name} = {value}")?;
        }
        for Table { title, rows, .. } in &self.tables {
            let Some(first) = rows.first() else { continue };
            write!(f, "\n{title:<34}")?;
            for (key, _) in &first.figures {
                write!(f, " {key:>width$}", width = width(key))?;
            }
            writeln!(f)?;
            for row in rows {
                write!(f, "{:<34}", row.name)?;
                for (key, value) in &row.figures {
                    write!(f, " {:>width$}", round(*value), width = width(key))?;
                }
                writeln!(f)?;
            }
        }
        if !self.figures.is_empty() {
            writeln!(f)?;
        }
        for (key, value) in &self.figures {
            writeln!(f, "{key:<34} {:>16}", round(*value))?;
        }
        Ok(())
    }
}

/// Columns are as wide as their heads, and wide enough for a figure.
fn width(key: &str) -> usize {
    key.len().max(12)
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
