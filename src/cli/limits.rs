//! The options that say what images and archives may cost, the same for all commands.

use super::mkimg::size;
use crate::store::{Exceeded, Limit, Limits};

/// The options; their defaults are those of [`Limits`].
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_field_names, reason = "they are the names of the options")]
pub struct Args {
    /// Refuse a layer or an archive that inflates to more
    #[arg(long, global = true, env = "SHIPIMG_MAX_INFLATED", value_name = "SIZE", value_parser = size)]
    #[arg(default_value = "256G", hide_short_help = true, help_heading = "Limits")]
    max_inflated: u64,
    /// Refuse one that inflates to more bytes for each compressed one, from 1 GiB on
    #[arg(long, global = true, env = "SHIPIMG_MAX_RATIO", value_name = "N")]
    #[arg(default_value_t = Limits::default().ratio, hide_short_help = true, help_heading = "Limits")]
    max_ratio: u64,
    /// Refuse a layer of more entries
    #[arg(long, global = true, env = "SHIPIMG_MAX_ENTRIES", value_name = "N")]
    #[arg(default_value_t = Limits::default().entries, hide_short_help = true, help_heading = "Limits")]
    max_entries: u64,
    /// Refuse a layer with a path of more names
    #[arg(long, global = true, env = "SHIPIMG_MAX_DEPTH", value_name = "N")]
    #[arg(default_value_t = Limits::default().depth, hide_short_help = true, help_heading = "Limits")]
    max_depth: usize,
    /// Refuse a layer whose zstd stream needs more memory; each layer under way takes so much
    #[arg(long, global = true, env = "SHIPIMG_MAX_ZSTD_WINDOW", value_name = "SIZE", value_parser = window)]
    #[arg(default_value = "16M", hide_short_help = true, help_heading = "Limits")]
    max_zstd_window: u32,
    /// Refuse a larger manifest, index or configuration
    #[arg(long, global = true, env = "SHIPIMG_MAX_DOCUMENT", value_name = "SIZE", value_parser = size)]
    #[arg(default_value = "4M", hide_short_help = true, help_heading = "Limits")]
    max_document: u64,
}

impl Args {
    /// The limits.
    pub const fn limits(&self) -> Limits {
        Limits {
            inflated: self.max_inflated,
            ratio: self.max_ratio,
            entries: self.max_entries,
            depth: self.max_depth,
            zstd_window_log: self.max_zstd_window,
            document: self.max_document,
        }
    }
}

/// Reads the size of a window; gives its logarithm (RFC 8878, 3.1.1.1.2; the library's own limits).
fn window(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    let log = bytes.ilog2();
    if bytes.is_power_of_two() && (10..=31).contains(&log) {
        return Ok(log);
    }
    Err("a window is a power of two from 1K to 2G".to_string())
}

/// The option that raises a limit.
pub fn hint(Exceeded { limit, most }: Exceeded) -> String {
    let option = match limit {
        Limit::Inflated => "--max-inflated",
        Limit::Ratio => "--max-ratio",
        Limit::Entries => "--max-entries",
        Limit::Depth => "--max-depth",
        Limit::ZstdWindow => "--max-zstd-window",
        Limit::Document => "--max-document",
    };
    format!("where the image is to be trusted, {option} with more than {most}, see docs/limits.md")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Error;
    use crate::{layer, rootfs};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: Args,
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
        assert_eq!(Line::parse_from(["x"]).limits.limits(), Limits::default());
    }

    #[test]
    fn windows() {
        assert_eq!((window("1K"), window("16M"), window("2G")), (Ok(10), Ok(24), Ok(31)));
        assert!(["0", "512", "4G", "17M", "x"].iter().all(|s| window(s).is_err()));
    }

    #[test]
    fn an_exceeded_limit_is_found_however_deep() {
        let exceeded = Exceeded { limit: Limit::Depth, most: 7 };
        let (layer, path) = (layer::Origin::Stream, crate::tree::TreePath::root());
        let reason = layer::Reason::Depth(exceeded);
        let deep = Error::from(rootfs::Error::from(layer::Error::Entry { layer, path, reason }));
        let read = Error::Output(std::io::Error::other(exceeded));
        for e in [deep, Error::Launch(Box::new(read))] {
            assert!(e.hint().is_some_and(|h| h.contains("--max-depth with more than 7,")), "{e}");
        }
    }
}
