//! `shipimg ps`: the processes of a container, as the host sees them.

use super::table::Format;
use super::{Context, Result};
use crate::sys::program;
use std::io::Write;
use std::process::ExitCode;

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The container's name
    id: String,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Options of the host's ps(1); its output needs a column PID
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "-ef", value_name = "OPTION")]
    options: Vec<String>,
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let pids = context.runtime()?.get(&self.id)?.processes()?;
        let mut out = std::io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{}", serde_json::json!(pids))?,
            Format::Table => {
                let all = program::output("ps", &self.options)?;
                for line in of(&String::from_utf8_lossy(&all), &pids) {
                    writeln!(out, "{line}")?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The heading of a table and the lines that have one of `pids` in the column PID; the heading
/// alone where there is no such column.
fn of<'a>(table: &'a str, pids: &[i32]) -> Vec<&'a str> {
    let mut lines = table.lines();
    let Some(heading) = lines.next() else { return Vec::new() };
    let column = heading.split_whitespace().position(|name| name == "PID");
    let wanted = |line: &&str| {
        let pid = column.and_then(|c| line.split_whitespace().nth(c)?.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    std::iter::once(heading).chain(lines.filter(wanted)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_by_column() {
        let table = "UID  PID CMD\nroot   1 7\nroot  17 x\n";
        assert_eq!(super::of(table, &[17, 7]), ["UID  PID CMD", "root  17 x"]);
        assert_eq!(super::of("A B\n1 2\n", &[1, 2]), ["A B"]);
    }
}
