//! Ways to show a result.

use crate::args::{Output, Watch};
use crate::failure::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Writes to stdout.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes a line to stdout.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{line}\n"))
}

/// Shows a value for programs.
pub(crate) fn value<T: Serialize>(value: &T, output: Output) -> Result<(), Failure> {
    let odd = |error: String| Failure::Odd(format!("the answer can't be written: {error}"));
    match output {
        Output::Yaml => text(&serde_saphyr::to_string(value).map_err(|error| odd(error.to_string()))?),
        Output::Table | Output::Json => {
            line(&serde_json::to_string_pretty(value).map_err(|error| odd(error.to_string()))?)
        }
    }
}

/// Shows one value of a stream: a line of JSON, or a document of YAML.
pub(crate) fn item<T: Serialize>(item: &T, output: Output) -> Result<(), Failure> {
    let odd = |error: String| Failure::Odd(format!("the answer can't be written: {error}"));
    match output {
        Output::Yaml => {
            let yaml = serde_saphyr::to_string(item).map_err(|error| odd(error.to_string()))?;
            text(&format!("---\n{yaml}"))
        }
        Output::Table | Output::Json => {
            line(&serde_json::to_string(item).map_err(|error| odd(error.to_string()))?)
        }
    }
}

/// Rows under headings, in columns of their own width.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// Runs a look once, or again and again.
pub(crate) async fn watch(
    watch: &Watch,
    output: Output,
    mut look: impl AsyncFnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    if !watch.watch {
        return look().await;
    }
    let mut rounds = 0;
    loop {
        if output == Output::Table && std::io::stdout().is_terminal() {
            // Home, and clear what is below.
            text("\x1b[H\x1b[J")?;
        }
        look().await?;
        rounds += 1;
        if watch.rounds.is_some_and(|most| rounds >= most) {
            return Ok(());
        }
        tokio::time::sleep(watch.interval).await;
    }
}
