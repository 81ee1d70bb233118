//! `shipimg mkimg`: a Debian or Ubuntu system from signed packages, as a filesystem image, an archive,
//! a folder or an image; or an image of the store as one of those.

mod report;
mod steps;
mod wanted;

pub use wanted::Wanted;

use super::import::source_date;
use super::phases::Phases;
use super::table::Format;
use super::{Context, Result, tidily};
use crate::debian::sbom::Form;
use crate::debian::{self, Lock, Progress, Request};
use crate::disk::boot::Arch;
use crate::disk::ext4::Size;
use crate::error::Kind;
use crate::oci::{Name, Platform};
use crate::output::{self, Kind as OutputKind, Output, Root, Settings};
use crate::recipe::System;
use crate::store::{Lease, Store};
use crate::sys::sandbox::private_mounts;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `mkimg`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Args {
    /// What to make: bookworm.img (ext4), .ext2, .btrfs, .squashfs, .erofs, .tar[.gz|.zst], a folder,
    /// KIND:PATH, subvolume:PATH, store:IMAGE, oci:DIR[:NAME], oci-archive:FILE, docker-archive:FILE
    #[arg(required = true, value_name = "OUTPUT")]
    outputs: Vec<Output>,
    /// Take the files of this image of the store, not packages
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["lock", "suite"])]
    from: Option<Name>,
    /// Of an index take this image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "from")]
    platform: Option<Platform>,
    /// The exact set of packages: read where the file is there and fits, else written
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Fail where the lock is not there or does not fit
    #[arg(long, requires = "lock")]
    frozen: bool,
    /// Write the list of packages too: NAME.spdx.json (SPDX 2.3) or NAME.cdx.json (`CycloneDX` 1.6)
    #[arg(long, value_name = "FILE", value_parser = sbom, conflicts_with = "from")]
    sbom: Vec<(Form, PathBuf)>,
    /// Make the system from its packages, though one of the same packages is kept in the store
    #[arg(long)]
    no_base_cache: bool,
    /// The size of the filesystem, as 800M or 2G, or auto: what the files need and what is to be free
    #[arg(long, value_parser = wanted_size, default_value = "auto")]
    size: Wish,
    /// How much of a filesystem of size auto is free [default: a quarter, at least 64M]
    #[arg(long, value_parser = size, value_name = "SIZE", conflicts_with = "shrink")]
    free: Option<u64>,
    /// The least size that holds the files
    #[arg(long, conflicts_with = "size")]
    shrink: bool,
    /// Make a disk of each .img, with partitions, from which a machine with UEFI starts
    #[arg(long)]
    disk: bool,
    /// Let the kernel write ext4 on a loop device, as root: another image each time
    #[arg(long = "loop", conflicts_with = "disk")]
    mounted: bool,
    /// Leave apt's caches in the system, with the packages' files and the indexes of the archives
    #[arg(long)]
    keep_apt: bool,
    /// The name of the filesystem [default: the suite]
    #[arg(long)]
    label: Option<String>,
    /// How to tell what was made
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    steps: steps::Steps,
}

/// What is wrong with the arguments, or with a lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A lock that is not there, though it must be.
    #[error("no lock {}", .0.display())]
    NoLock(PathBuf),
    /// A lock of another request, though it must fit.
    #[error("{}: made for {was}, asked for is {asked}", path.display())]
    Stale {
        /// The lock's file.
        path: PathBuf,
        /// What it was made for.
        was: String,
        /// What is asked for.
        asked: String,
    },
    /// A shell was asked for, but nobody can type.
    #[error("--shell-on-error needs a terminal as standard input")]
    NoTerminal,
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NoLock(_) | Self::Stale { .. } => Kind::Stale,
            Self::NoTerminal => Kind::Input,
        }
    }
}

/// Reads `800M`, `2G`, `1073741824`.
pub(super) fn size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return Err("a size is a number with K, M, G or T behind it".to_string()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "a size is a number with K, M, G or T behind it".to_string())?;
    number.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(|| "out of range".to_string())
}

/// The package of what is started from a disk.
const BOOT_LOADER: &str = "systemd-boot-efi";

/// A file for the list of packages, in the form that its name tells.
fn sbom(text: &str) -> std::result::Result<(Form, PathBuf), String> {
    let form = Form::of(Path::new(text)).ok_or("its name ends neither with .spdx.json nor with .cdx.json")?;
    Ok((form, text.into()))
}

/// What outputs are made of.
struct Made {
    system: System,
    settings: Settings,
    /// The packages, where it is made of some.
    lock: Option<Lock>,
}

/// A size that is asked for; none for a computed one.
#[derive(Debug, Clone, Copy)]
struct Wish(Option<u64>);

fn wanted_size(text: &str) -> std::result::Result<Wish, String> {
    if text == "auto" { Ok(Wish(None)) } else { size(text).map(|n| Wish(Some(n))) }
}

impl Args {
    pub(super) fn run(&self, context: &Context) -> Result<ExitCode> {
        let whole: Vec<_> = self.outputs.iter().map(|output| self.whole(output)).collect();
        let outputs = output::check(&whole, self.size(), self.mounted)?;
        let store = context.store()?;
        let lease = store.lease()?;
        let phases = Phases::new();
        let made = match &self.from {
            Some(name) => {
                if output::mounts(&outputs, self.mounted) {
                    private_mounts()?;
                }
                self.image(name, &store, &lease)?
            }
            None => self.system(&outputs, &store, &lease, &phases)?,
        };
        let root = Root::new(&store, &lease, &made.system.image, &made.system.files);
        phases.phase("write", None);
        // Workspaces lie in folders of the user's, where no later command may come to sweep.
        tidily(|| {
            let mut written = Vec::new();
            for output in &outputs {
                phases.detail(&output.to_string());
                written.push(output.write(&root, &made.settings)?);
            }
            for ((form, path), lock) in self.sbom.iter().zip(made.lock.iter().cycle()) {
                debian::sbom::write(lock, *form, made.settings.time, path)?;
            }
            let unsigned = made.lock.iter().flat_map(|l| &l.releases).filter(|r| r.signer.is_none());
            let image = &made.system.image;
            let report = Report {
                written: self.outputs.iter().zip(written).collect(),
                packages: made.lock.as_ref().map(|lock| lock.packages.len()),
                digest: if made.lock.is_some() { &image.layers[0].diff_id } else { &image.descriptor.digest },
                unsigned: unsigned.map(|r| format!("{} {}", r.uri, r.suite)).collect(),
                phases: phases.finish(),
            };
            report.tell(self.format)
        })
    }

    /// The output as it is wanted: with --disk, a disk.
    fn whole(&self, output: &Output) -> Output {
        match output {
            Output::File(OutputKind::Ext4, path) if self.disk => Output::File(OutputKind::Disk, path.clone()),
            other => other.clone(),
        }
    }

    /// A system of packages.
    fn system(&self, outputs: &[Output], store: &Store, lease: &Lease, phases: &Phases) -> Result<Made> {
        let suite = self.wanted.suite.clone().unwrap_or_else(|| self.outputs[0].stem());
        let mut request = self.wanted.request(&suite)?;
        self.steps.apply(&mut request)?;
        let disk = outputs.iter().any(|o| matches!(o, Output::File(OutputKind::Disk, _)));
        if disk && Arch::named(&request.arch).is_none() {
            return Err(output::Error::NoFirmware(request.arch).into());
        }
        if disk && !request.include.iter().any(|p| p == BOOT_LOADER) {
            say!("{BOOT_LOADER} is included: firmware starts it from the disk");
            request.include.push(BOOT_LOADER.to_string());
        }
        request.epoch = source_date();
        request.keep_apt = self.keep_apt;
        let lock = self.lock(&request, store, phases)?;
        if disk && !lock.packages.iter().any(|p| p.name.starts_with("linux-image-")) {
            say!(
                "no kernel is included: --include linux-image-{} (Ubuntu: linux-image-generic)",
                request.arch
            );
        }
        if request.filters.is_empty() {
            // What is compressed in packages is not smaller as files.
            output::check_size(outputs, self.size(), lock.packages.iter().map(|p| p.size).sum())?;
        }
        let system = System::debian(&request, &lock, self.no_base_cache, store, lease, phases)?;
        let settings = self.settings(&suite, &request.arch, &system, request.time(&lock));
        Ok(Made { system, settings, lock: Some(lock) })
    }

    /// An image that is there.
    fn image(&self, name: &Name, store: &Store, lease: &Lease) -> Result<Made> {
        let descriptor = store.find(name)?.descriptor;
        lease.hold(&descriptor.digest)?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let image = store.image(&descriptor, &platform)?;
        let system = System::image(store, image)?;
        // Of what firmware starts, both have the same names.
        let arch = system.image.config.architecture().to_string();
        let settings = self.settings(name.as_str(), &arch, &system, source_date().unwrap_or(0));
        Ok(Made { system, settings, lock: None })
    }

    const fn size(&self) -> Size {
        match self.size {
            _ if self.shrink => Size::Shrink,
            Wish(Some(size)) => Size::Fixed(size),
            Wish(None) => Size::Auto { free: self.free },
        }
    }

    fn settings(&self, label: &str, arch: &str, system: &System, time: i64) -> Settings {
        Settings {
            size: self.size(),
            mounted: self.mounted,
            arch: arch.to_string(),
            label: self.label.clone().unwrap_or_else(|| label.to_string()),
            seed: system.image.chain_id().clone(),
            time,
            coding: crate::layer::Coding::default(),
        }
    }

    /// The lock of the file where it fits, else of the archives as they are now.
    fn lock(&self, request: &Request, store: &Store, phases: &Phases) -> Result<Lock> {
        let Some(path) = &self.lock else { return Ok(debian::resolve(request, store, phases)?) };
        let asked = request.asked();
        match Lock::read(path)? {
            Some(lock) if lock.request == asked => return Ok(lock),
            None if self.frozen => return Err(Error::NoLock(path.clone()).into()),
            Some(lock) if self.frozen => {
                let (was, asked) = (lock.request.to_string(), asked.to_string());
                return Err(Error::Stale { path: path.clone(), was, asked }.into());
            }
            Some(_) => say!("{}: made for something else, written anew", path.display()),
            None => {}
        }
        let lock = debian::resolve(request, store, phases)?;
        lock.write(path)?;
        Ok(lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_by_name() {
        assert_eq!(sbom("a/x.cdx.json"), Ok((Form::CycloneDx, "a/x.cdx.json".into())));
        assert!(sbom("x.json").unwrap_err().contains(".spdx.json"));
    }

    #[test]
    fn sizes() {
        assert_eq!((size("2G"), size("800M"), size("5")), (Ok(2 << 30), Ok(800 << 20), Ok(5)));
        assert!(["", "G", "2X", "-1", "0", "99999999999T"].iter().all(|s| size(s).is_err()));
    }
}
