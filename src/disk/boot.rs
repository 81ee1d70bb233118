//! Disks that a machine starts from: a partition with what its UEFI firmware reads, and one with the
//! root.
//!
//! The firmware starts systemd-boot, which the root must have (Debian's `systemd-boot-efi`), and that
//! starts the newest kernel of those in the root's `/boot`. Kernels are copied, since firmware reads
//! FAT only:
//!
//! ```text
//! EFI/BOOT/BOOTX64.EFI              the boot loader, where firmware looks for it
//! EFI/systemd/systemd-bootx64.efi   the same, where bootctl(1) looks for it
//! loader/loader.conf                a menu for 3 seconds, where there are several kernels
//! loader/entries/ID-VERSION.conf    a kernel (Boot Loader Specification, type 1)
//! ID/VERSION/linux, initrd.img      its files; ID is that of os-release(5)
//! ```
//!
//! The kernel finds the root by the identifier of its partition; messages go to the screen and to
//! the first serial line, on which systemd starts a login. The types of the partitions are those of
//! the Discoverable Partitions Specification. A kernel that is installed later gets onto the first
//! partition by whatever the root has for that (Debian's `systemd-boot`), for which it has room.

use super::fat::{self, Item};
use super::gpt::{Disk, Guid, Partition, Place};
use super::{Error, Result, Source, Unpublished};
use crate::tree::{Kind, Tree, TreePath};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Free space for kernels to come, in bytes, beside as much as is used.
const ROOM: u64 = 32 << 20;
/// Bytes of os-release that are read.
const OS_RELEASE: u64 = 64 << 10;

/// What processor a disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86 with 64 bits.
    Amd64,
    /// ARM with 64 bits.
    Arm64,
}

impl Arch {
    /// The one that Debian and OCI call so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "amd64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The type of a root's partition.
    #[must_use]
    pub const fn root(self) -> Guid {
        Guid::new(match self {
            Self::Amd64 => 0x4f68_bce3_e8cd_4db1_96e7_fbca_f984_b709,
            Self::Arm64 => 0xb921_b045_1df0_41c3_af44_4c6f_280d_3fae,
        })
    }

    /// What UEFI calls it.
    const fn efi(self) -> &'static str {
        match self {
            Self::Amd64 => "x64",
            Self::Arm64 => "aa64",
        }
    }

    /// The first serial line.
    const fn serial(self) -> &'static str {
        match self {
            Self::Amd64 => "ttyS0",
            Self::Arm64 => "ttyAMA0",
        }
    }
}

/// The identifiers of a disk; all of them different.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The disk's.
    pub disk: Guid,
    /// That of the partition for firmware.
    pub esp: Guid,
    /// That of the partition with the root.
    pub root: Guid,
}

impl Ids {
    /// The text of the root's `/etc/fstab`: the root, which grows to the size of its partition, and
    /// what firmware reads below `/boot/efi`.
    #[must_use]
    pub fn fstab(&self) -> String {
        format!(
            "PARTUUID={} / ext4 rw,relatime,errors=remount-ro,x-systemd.growfs 0 1\n\
             PARTUUID={} /boot/efi vfat umask=0077,nofail 0 0\n",
            self.root, self.esp
        )
    }
}

/// A disk that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What processor it is for.
    pub arch: Arch,
    /// Its identifiers.
    pub ids: Ids,
    /// The size of the root's partition in bytes, of which whole MiB are made.
    pub root_size: u64,
}

/// What is odd about a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// There is nothing to be started.
    NoKernel,
    /// The kernel of this version has no initial RAM disk.
    NoInitrd(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel => f.write_str("the root has no kernel /boot/vmlinuz-*"),
            Self::NoInitrd(version) => write!(f, "the root has no /boot/initrd.img-{version}"),
        }
    }
}

/// A disk that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the disk.
    pub size: u64,
    /// Where what firmware reads lies.
    pub esp: Place,
    /// Where the root lies.
    pub root: Place,
    /// Versions of the kernels.
    pub kernels: Vec<String>,
    /// What is odd.
    pub warnings: Vec<Warning>,
}

/// Makes the disk `target` for `root`, whose filesystem `write_root` writes into the file from an
/// offset on, no longer than a length; the file is all zeros there. A target that exists is replaced
/// when the new one is whole.
///
/// # Errors
/// [`Error::NoBootLoader`], [`Error::Unfit`] where a kernel is no file of a FAT filesystem,
/// [`Error::Io`], those of `write_root`.
pub fn write(
    target: &Path,
    root: &dyn Source,
    options: &Options,
    write_root: &mut dyn FnMut(&File, u64, u64) -> Result<()>,
) -> Result<Report> {
    let ids = &options.ids;
    let release = Release::of(root)?;
    let plan = Plan::new(root.tree(), &release, options)?;
    let items = plan.items(root)?;
    let used: u64 = items.iter().map(|item| u64::from(item.size)).sum();
    let esp =
        Partition { kind: Guid::ESP, id: ids.esp, name: "esp", size: (2 * used + ROOM).max(fat::MIN_SIZE) };
    let os = Partition { kind: options.arch.root(), id: ids.root, name: "root", size: options.root_size };
    let disk = Disk::new(ids.disk, &[esp, os]);
    let places: Vec<Place> = disk.places().collect();
    let image = Unpublished::new(target)?;
    image.file.set_len(disk.size()).map_err(|e| Error::io("extend", target, e))?;
    disk.write(&image.file, target)?;
    let id = u32::try_from(ids.esp.digits() >> 96).unwrap_or(0);
    let name = fat::Name { id, label: *b"ESP        " };
    fat::write(&image.file, target, places[0], name, items)?;
    write_root(&image.file, places[1].offset, places[1].size)?;
    root.check().map_err(Error::Source)?;
    image.publish(target)?;
    let (kernels, warnings) = (plan.kernels, plan.warnings);
    Ok(Report { size: disk.size(), esp: places[0], root: places[1], kernels, warnings })
}

/// What a root says of itself.
struct Release {
    id: String,
    name: String,
}

impl Release {
    fn of(root: &dyn Source) -> Result<Self> {
        for name in ["etc/os-release", "usr/lib/os-release"] {
            let path = path(name);
            if root.tree().get(&path).is_some_and(|n| n.kind == Kind::File) {
                let mut text = Vec::new();
                let read = root.content(&path).and_then(|c| c.take(OS_RELEASE).read_to_end(&mut text));
                read.map_err(|e| Error::io("read", path.as_path(), e))?;
                return Ok(Self::parse(&String::from_utf8_lossy(&text)));
            }
        }
        Ok(Self::parse(""))
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix('='))?;
            let value = line.trim_matches(['"', '\'']).replace('\\', "");
            (!value.is_empty()).then_some(value)
        };
        // FAT knows no upper and lower case.
        let taken = |id: &str| ["efi", "loader"].contains(&id.to_ascii_lowercase().as_str());
        let id = value("ID").filter(|id| is_plain(id) && !taken(id));
        let name = value("PRETTY_NAME").filter(|name| !name.contains(char::is_control));
        Self { id: id.unwrap_or("linux".to_string()), name: name.unwrap_or("Linux".to_string()) }
    }
}

/// Where a file of the first partition comes from.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Text(String),
    Root(TreePath),
}

/// All files of the first partition, by path.
#[derive(Debug, Default)]
struct Plan {
    files: Vec<(String, Origin)>,
    kernels: Vec<String>,
    warnings: Vec<Warning>,
}

impl Plan {
    fn new(tree: &Tree, release: &Release, options: &Options) -> Result<Self> {
        let is_file = |path: &TreePath| tree.get(path).is_some_and(|n| n.kind == Kind::File);
        let mut plan = Self::default();
        let efi = options.arch.efi();
        let loader = path(&format!("usr/lib/systemd/boot/efi/systemd-boot{efi}.efi"));
        if !is_file(&loader) {
            return Err(Error::NoBootLoader { path: loader });
        }
        plan.add(format!("EFI/BOOT/BOOT{}.EFI", efi.to_uppercase()), Origin::Root(loader.clone()));
        plan.add(format!("EFI/systemd/systemd-boot{efi}.efi"), Origin::Root(loader));
        for (kernel, version) in kernels(tree) {
            let folder = format!("{}/{version}", release.id);
            let initrd = path(&format!("boot/initrd.img-{version}"));
            let mut entry = String::new();
            let mut line = |key: &str, value: &str| writeln!(entry, "{key:<10} {value}").unwrap_or(());
            line("title", &release.name);
            line("version", version);
            line("sort-key", &release.id);
            line("linux", &format!("/{folder}/linux"));
            if is_file(&initrd) {
                line("initrd", &format!("/{folder}/initrd.img"));
            }
            let serial = options.arch.serial();
            line("options", &format!("root=PARTUUID={} rw console=tty0 console={serial}", options.ids.root));
            plan.add(format!("loader/entries/{}-{version}.conf", release.id), Origin::Text(entry));
            plan.add(format!("{folder}/linux"), Origin::Root(kernel.clone()));
            if is_file(&initrd) {
                plan.add(format!("{folder}/initrd.img"), Origin::Root(initrd));
            } else {
                plan.warnings.push(Warning::NoInitrd(version.to_string()));
            }
            plan.kernels.push(version.to_string());
        }
        if plan.kernels.is_empty() {
            plan.warnings.push(Warning::NoKernel);
        }
        let timeout = if plan.kernels.len() > 1 { 3 } else { 0 };
        plan.add("loader/loader.conf".to_string(), Origin::Text(format!("timeout {timeout}\n")));
        Ok(plan)
    }

    fn add(&mut self, path: String, origin: Origin) {
        self.files.push((path, origin));
    }

    /// The files with what gives their content.
    fn items<'a>(&self, root: &'a dyn Source) -> Result<Vec<Item<'a>>> {
        let item = |(to, origin): &(String, Origin)| match origin {
            Origin::Text(text) => Ok(Item::text(to, text.clone())),
            Origin::Root(path) => {
                let size = root.tree().get(path).and_then(|n| u32::try_from(n.size).ok());
                let size = size.ok_or(Error::Unfit { path: path.clone(), reason: "4 GiB and more" })?;
                let content = root.content(path).map_err(|e| Error::io("open", path.as_path(), e))?;
                Ok(Item { path: to.clone(), size, content })
            }
        };
        self.files.iter().map(item).collect()
    }
}

/// The kernels of a root, and their versions; one of those that FAT takes for the same.
fn kernels(tree: &Tree) -> impl Iterator<Item = (&TreePath, &str)> {
    let mut seen = HashSet::new();
    tree.iter().filter(|(_, node)| node.kind == Kind::File).filter_map(move |(path, _)| {
        let version = path.as_bytes().strip_prefix(b"boot/vmlinuz-")?;
        let version = std::str::from_utf8(version).ok()?;
        (is_plain(version) && seen.insert(version.to_ascii_lowercase())).then_some((path, version))
    })
}

/// Whether a text can be part of a file's name everywhere.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    (1..=100).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('.')
        && !text.ends_with('.')
}

/// A path of the root, of names without `..`.
fn path(path: &str) -> TreePath {
    path.split('/').fold(TreePath::root(), |p, name| p.join(OsStr::from_bytes(name.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Meta, Node};

    const OPTIONS: Options = Options {
        arch: Arch::Amd64,
        ids: Ids { disk: Guid::new(1), esp: Guid::new(2), root: Guid::new(0x4f2) },
        root_size: 0,
    };

    fn tree(files: &[&str]) -> Tree {
        let node =
            |kind| Node { kind, meta: Meta::default(), size: 1, sha256: None, same: None, inode: None };
        let link = path("boot/vmlinuz-link");
        let all = files.iter().map(|f| (path(f), node(Kind::File)));
        all.chain([(link, node(Kind::Symlink(b"x".to_vec())))]).collect()
    }

    fn plan(files: &[&str], options: &Options) -> Result<Plan> {
        let release = Release { id: "debian".to_string(), name: "Debian 12".to_string() };
        Plan::new(&tree(files), &release, options)
    }

    #[test]
    fn releases() {
        for (text, id, name) in [
            (
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n",
                "debian",
                "Debian GNU/Linux 12 (bookworm)",
            ),
            ("VERSION_ID=\"3\"\nID='a.b-c'\nPRETTY_NAME=A", "a.b-c", "A"),
            ("ID=Efi", "linux", "Linux"),
            ("ID=../x\nPRETTY_NAME=\n", "linux", "Linux"),
            ("", "linux", "Linux"),
        ] {
            let release = Release::parse(text);
            assert_eq!((release.id.as_str(), release.name.as_str()), (id, name), "{text}");
        }
    }

    #[test]
    fn a_kernel_gets_an_entry() {
        let loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
        let plan = plan(&[loader, "boot/vmlinuz-6.1-amd64", "boot/initrd.img-6.1-amd64"], &OPTIONS).unwrap();
        let entry = "title      Debian 12\n\
                     version    6.1-amd64\n\
                     sort-key   debian\n\
                     linux      /debian/6.1-amd64/linux\n\
                     initrd     /debian/6.1-amd64/initrd.img\n\
                     options    root=PARTUUID=00000000-0000-0000-0000-0000000004f2 rw console=tty0 console=ttyS0\n";
        let text = |text: &str| Origin::Text(text.to_string());
        let want = [
            ("EFI/BOOT/BOOTX64.EFI", Origin::Root(path(loader))),
            ("EFI/systemd/systemd-bootx64.efi", Origin::Root(path(loader))),
            ("loader/entries/debian-6.1-amd64.conf", text(entry)),
            ("debian/6.1-amd64/linux", Origin::Root(path("boot/vmlinuz-6.1-amd64"))),
            ("debian/6.1-amd64/initrd.img", Origin::Root(path("boot/initrd.img-6.1-amd64"))),
            ("loader/loader.conf", text("timeout 0\n")),
        ];
        assert_eq!(plan.files, want.map(|(path, origin)| (path.to_string(), origin)));
        assert_eq!((plan.kernels, plan.warnings), (vec!["6.1-amd64".to_string()], vec![]));
    }

    #[test]
    fn what_is_missing_is_said() {
        let loader = "usr/lib/systemd/boot/efi/systemd-bootaa64.efi";
        let arm = Options { arch: Arch::Arm64, ..OPTIONS };
        let e = plan(&[loader, "boot/vmlinuz-1"], &OPTIONS).unwrap_err();
        assert_eq!(
            e.to_string(),
            "the root has no boot loader /usr/lib/systemd/boot/efi/systemd-bootx64.efi"
        );
        let none = plan(&[loader, "boot/vmlinuz-", "boot/vmlinuz-a b", "boot/vmlinuz-1/x"], &arm).unwrap();
        assert_eq!((none.kernels, none.warnings), (vec![], vec![Warning::NoKernel]));
        let same = plan(&[loader, "boot/vmlinuz-a", "boot/vmlinuz-A"], &arm).unwrap();
        assert_eq!(same.kernels, ["A"]);
        let two = plan(&[loader, "boot/vmlinuz-2", "boot/vmlinuz-1", "boot/initrd.img-1"], &arm).unwrap();
        assert_eq!(two.warnings, [Warning::NoInitrd("2".to_string())]);
        assert_eq!(two.files[0].0, "EFI/BOOT/BOOTAA64.EFI");
        let last = ("loader/loader.conf".to_string(), Origin::Text("timeout 3\n".to_string()));
        assert_eq!(two.files.last(), Some(&last));
    }
}
