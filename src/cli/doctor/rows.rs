//! The rows of `shipimg doctor`, each from a trial.

use super::{Row, State};
use crate::disk::{self, ext4};
use crate::store::{Store, mount_backing};
use crate::sys::loopdev::LoopDevice;
use crate::sys::trial::{self, Users};
use crate::sys::workspace::Workspace;
use crate::sys::{self, Call, btrfs, program, userns};
use crate::tree::Tree;
use indicatif::HumanBytes;
use std::fs;
use std::path::{Path, PathBuf};

/// Less free space than this is called limited, in bytes.
const LITTLE: u64 = 1 << 30;

/// Where the trials run.
struct Ground {
    folder: Workspace,
    is_root: bool,
    /// Where trials of namespaces begin: an ordinary user needs a user namespace first.
    users: Users,
}

/// Tries everything.
pub(super) fn all(root: &Path) -> Vec<Row> {
    let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
    let (store, place) = store(&root);
    let mut rows = vec![store];
    match Workspace::within(&place).or_else(|_| Workspace::within(&std::env::temp_dir())) {
        Ok(folder) => {
            let is_root = rustix::process::geteuid().is_root();
            let users = if is_root { Users::Own } else { Users::New };
            let ground = Ground { folder, is_root, users };
            rows.extend(ground.drivers());
            rows.extend(ground.filesystems());
            rows.extend(ground.running());
            rows.extend(ground.network());
        }
        Err(e) => rows.push(Row::new("scratch folder", "all", Err(e), "").basic()),
    }
    rows.extend(programs());
    rows
}

/// The store, and the folder for trials on its filesystem.
fn store(root: &Path) -> (Row, PathBuf) {
    let there = root.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_path_buf();
    let mkdir = format!("sudo install -d -o \"$USER\" {}", root.display());
    let row = |state, detail: String, remedy: &str| Row {
        what: "store",
        state,
        detail,
        commands: "all",
        remedy: (!remedy.is_empty()).then(|| remedy.to_string()),
        basic: true,
    };
    if let Err(e) = mount_backing(root) {
        let mount = format!("sudo shipimg --root {} images", root.display());
        return (row(State::Missing, e.to_string(), &mount), there);
    }
    if there != root {
        let detail = format!("{} is not there yet", root.display());
        return match Workspace::within(&there) {
            Ok(_) => (row(State::Ok, detail, ""), there),
            Err(e) => (row(State::Missing, format!("{detail}: {e}"), &mkdir), there),
        };
    }
    // A folder that is no store yet is not made one.
    let is_empty = fs::read_dir(root).is_ok_and(|mut d| d.next().is_none());
    let opened = if is_empty { Ok(None) } else { open(root).map(Some) };
    let place = opened
        .as_ref()
        .ok()
        .and_then(Option::as_ref)
        .map_or_else(|| there.clone(), |s| s.root().join("shipimg/tmp"));
    let found = match opened {
        Err(e) => row(State::Missing, e, "shipimg store init --root DIR, with an empty DIR"),
        Ok(_) => match (Workspace::within(&place), free(root)) {
            (Err(e), _) => row(State::Limited, format!("cannot be written to: {e}"), &mkdir),
            (_, Ok(free)) if free < LITTLE => row(
                State::Limited,
                format!("{} free at {}", HumanBytes(free), root.display()),
                "shipimg prune --all",
            ),
            (_, Ok(free)) => row(State::Ok, format!("{} free at {}", HumanBytes(free), root.display()), ""),
            (_, Err(e)) => row(State::Limited, e.to_string(), ""),
        },
    };
    (found, place)
}

/// Opens what is a store already.
fn open(root: &Path) -> Result<Store, String> {
    if !root.join("oci-layout").exists() {
        return Err(format!("{} is neither a store nor empty", root.display()));
    }
    Store::open(root).map_err(|e| e.to_string())
}

fn free(path: &Path) -> sys::Result<u64> {
    let stat = rustix::fs::statvfs(path).call(|| format!("statvfs({})", path.display()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

impl Ground {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What the drivers stand on.
    fn drivers(&self) -> Vec<Row> {
        let folder = self.path();
        let xattr = |name| trial::try_xattr(folder, name);
        let on_btrfs = btrfs::is_btrfs(folder).and_then(|is| {
            let path = folder.join("subvolume");
            if is {
                btrfs::create(&path).and_then(|()| btrfs::delete(&path)).map(|()| true)
            } else {
                Ok(false)
            }
        });
        let btrfs_row = match on_btrfs {
            Ok(false) => {
                let remedy = self.as_root("apt-get install btrfs-progs && modprobe btrfs");
                let remedy = remedy.as_str();
                let mut row = Row::new("btrfs", "bundle, run, store init", self.try_btrfs(), remedy);
                if row.state == State::Ok {
                    row.state = State::Limited;
                    row.detail = "works, but the store is not on it".into();
                    row.remedy = Some("shipimg --root DIR store init --btrfs-image FILE".into());
                }
                row.not_needed()
            }
            other => Row::new("btrfs", "bundle, run", other.map(drop), "").seen("the store is on it"),
        };
        let own = |row: Row| if self.is_root { row } else { row.for_root("overlay in a user namespace") };
        vec![
            own(Row::new(
                "overlay",
                "bundle, run",
                trial::try_overlay(folder, Users::Own),
                "modprobe overlay",
            )
            .not_needed()),
            Row::new(
                "overlay in a user namespace",
                "bundle, run",
                trial::try_overlay(folder, Users::New),
                "shipimg run --driver copy",
            )
            .not_needed(),
            Row::new(
                "overlay of 500 layers",
                "bundle, run",
                trial::try_lowerdir(folder, self.users),
                "shipimg run --driver copy",
            )
            .not_needed(),
            Row::new(
                "user xattrs",
                "unpack, bundle, run",
                xattr("user.shipimg"),
                "shipimg --root DIR doctor, with DIR on ext4, xfs or btrfs",
            ),
            own(Row::new("trusted xattrs", "bundle, run", xattr("trusted.shipimg"), "").not_needed()),
            btrfs_row,
            Row::new(
                "reflink",
                "bundle, run",
                trial::try_reflink(folder),
                "shipimg --root DIR doctor, with DIR on btrfs or xfs",
            )
            .not_needed(),
        ]
    }

    /// The remedy, or that of an ordinary user.
    fn as_root(&self, remedy: &str) -> String {
        if self.is_root { remedy } else { "sudo shipimg doctor" }.to_string()
    }

    /// A btrfs in a file, mounted.
    fn try_btrfs(&self) -> sys::Result<()> {
        let file = self.path().join("btrfs.img");
        fs::File::create(&file)
            .and_then(|f| f.set_len(128 << 20))
            .call(|| format!("create({})", file.display()))?;
        program::output("mkfs.btrfs", &["-q".as_ref(), file.as_os_str()])?;
        self.mount(&file, "btrfs")
    }

    fn mount(&self, file: &Path, fstype: &'static str) -> sys::Result<()> {
        let target = self.path().join("mounted");
        fs::create_dir_all(&target).call(|| format!("mkdir({})", target.display()))?;
        if fstype == "erofs" && trial::try_mount(file, &target, fstype).is_ok() {
            return Ok(());
        }
        let device = LoopDevice::attach(file, true)?;
        let mounted = trial::try_mount(device.path(), &target, fstype);
        device.close()?;
        mounted
    }

    /// Mounts an ext4 image without files, made as `file`.
    fn ext4(&self, file: &Path) -> disk::Result<()> {
        let options = ext4::Options {
            kind: ext4::Kind::Ext4,
            size: ext4::Size::Shrink,
            label: String::new(),
            uuid: [0; 16],
            hash_seed: [0; 16],
            time: 0,
        };
        ext4::write(&Tree::new(), file, &options)?;
        Ok(self.mount(file, "ext4")?)
    }

    /// Loop devices and filesystems of image files.
    fn filesystems(&self) -> Vec<Row> {
        let path = |name: &str| self.path().join(name);
        let (tree, blank) = (path("tree"), path("blank"));
        let made = fs::create_dir_all(&tree).and_then(|()| fs::File::create(&blank)?.set_len(4 << 20));
        let attached = made.call(|| format!("create({})", blank.display()));
        let attached = attached.and_then(|()| LoopDevice::attach(&blank, true)?.close());
        let mut rows = vec![Row::new(
            "loop devices",
            "run, bundle, store init",
            attached,
            &self.as_root("modprobe loop"),
        )];
        let remedy = self.as_root("modprobe ext4");
        rows.push(Row::new("ext4", "run, bundle", self.ext4(&path("ext4")), &remedy));
        let (tree, file) = (tree.as_os_str(), |name: &str| path(name).into_os_string());
        let (squashfs, erofs) = (file("squashfs"), file("erofs"));
        let makers: [(_, _, _, Vec<&std::ffi::OsStr>, _); 2] = [
            (
                "squashfs",
                "mksquashfs",
                "squashfs-tools",
                vec![tree, &squashfs, "-quiet".as_ref(), "-no-progress".as_ref()],
                &squashfs,
            ),
            ("erofs", "mkfs.erofs", "erofs-utils", vec![&erofs, tree], &erofs),
        ];
        for (fstype, maker, package, args, file) in makers {
            let row = match program::output(maker, &args) {
                Ok(_) => {
                    let remedy = self.as_root(&format!("modprobe {fstype}"));
                    Row::new(fstype, "run, bundle", self.mount(Path::new(file), fstype), &remedy)
                }
                // Nothing to mount: the kernel's word for it.
                Err(e) => {
                    let mut row = Row::new(
                        fstype,
                        "run, bundle",
                        trial::try_filesystem(fstype),
                        &format!("apt-get install {package}"),
                    );
                    if row.state == State::Ok {
                        row.state = State::Limited;
                        row.detail = format!("the kernel knows it, not tried: {e}");
                        row.remedy = Some(format!("apt-get install {package}"));
                    }
                    row
                }
            };
            rows.push(row);
        }
        rows
    }

    /// What containers stand on.
    fn running(&self) -> Vec<Row> {
        let allow = "sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1";
        let commands = "run, create, exec";
        let ids = sub_ids(self.is_root);
        let count = ids.as_ref().map_or(0, |n| *n);
        let mut ids =
            Row::new("subordinate ids", "run, unpack", ids.map(drop), "").seen(format!("{count} ids"));
        if ids.state != State::Ok {
            ids.remedy = Some("apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 \"$USER\"".into());
        }
        let (kind, parent) = cgroup();
        let mut cgroups = Row::new("cgroups", commands, trial::try_cgroup(&parent), "").seen(kind);
        if cgroups.state != State::Ok {
            cgroups.detail = format!("{kind}, none can be made: {}", cgroups.detail);
            let own = "systemd-run --user --scope -p Delegate=yes shipimg doctor";
            cgroups.remedy = Some(if kind == "version 2" {
                own.into()
            } else {
                self.as_root("mount -t cgroup2 none /sys/fs/cgroup")
            });
        }
        vec![
            Row::new("namespaces", commands, trial::try_namespaces(self.users), allow).basic(),
            Row::new("user namespaces", commands, trial::try_namespaces(Users::New), allow).not_needed(),
            ids.not_needed(),
            cgroups.not_needed(),
            Row::new("seccomp", commands, trial::try_seccomp(), "").basic(),
        ]
    }

    fn network(&self) -> Vec<Row> {
        let ip = |args: &[&str]| trial::try_network(self.users, "ip", args);
        let ip_remedy = "apt-get install iproute2";
        let nat = "add table ip shipimg; add chain ip shipimg p { type nat hook prerouting priority -100; }; \
                   add rule ip shipimg p fib daddr type local tcp dport 80 dnat to 192.0.2.1:80";
        let nft = trial::try_network(self.users, "nft", &[nat]);
        vec![
            Row::new(
                "veth pairs",
                "run --net",
                ip(&["link", "add", "name", "ship0", "type", "veth", "peer", "name", "ship1"]),
                ip_remedy,
            )
            .not_needed(),
            Row::new(
                "bridges",
                "run --net bridge",
                ip(&["link", "add", "name", "ship0", "type", "bridge"]),
                ip_remedy,
            )
            .not_needed(),
            Row::new("packet filter", "run --net bridge", nft, "apt-get install nftables").not_needed(),
            pasta().not_needed(),
        ]
    }
}

/// `--net pasta`: the program, and the device by which it makes the interface.
fn pasta() -> Row {
    let tun = Path::new("/dev/net/tun");
    let opened = fs::File::options().read(true).write(true).open(tun).map(drop);
    let tried = if trial::has_program("pasta") {
        opened.call(|| format!("open({})", tun.display()))
    } else {
        Err(sys::Error::NoProgram { program: "pasta".into() })
    };
    let remedy = match &tried {
        Err(sys::Error::NoProgram { .. }) => "apt-get install passt",
        _ => "sudo modprobe tun && sudo chmod 666 /dev/net/tun",
    };
    Row::new("pasta", "run", tried, remedy)
}

/// All subordinate ids of the user, or for root a range that is always its own; how many there are.
fn sub_ids(is_root: bool) -> sys::Result<u64> {
    if is_root {
        return trial::try_sub_ids(100_000, 65_536).map(|()| 65_536);
    }
    userns::try_enter()
}

/// Which cgroups there are, and the folder in which this user may have its own.
fn cgroup() -> (&'static str, PathBuf) {
    let top = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = |of: &str| {
        let line = own.lines().find_map(|l| l.split_once(':')?.1.strip_prefix(of));
        line.unwrap_or_default().trim_start_matches(['/', ':']).to_string()
    };
    if top.join("cgroup.controllers").exists() {
        return ("version 2", top.join(path(":")));
    }
    let kind = if top.join("unified/cgroup.controllers").exists() { "hybrid" } else { "version 1" };
    let parent = top.join("pids").join(path("pids:"));
    (kind, if parent.is_dir() { parent } else { top.join("pids") })
}

/// External programs: name, package, which commands.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("mkfs.btrfs", "btrfs-progs", "store init"),
    ("newuidmap", "uidmap", "run, unpack"),
    ("newgidmap", "uidmap", "run, unpack"),
];

fn programs() -> impl Iterator<Item = Row> {
    PROGRAMS.into_iter().map(|(program, package, commands)| {
        let found = if trial::has_program(program) {
            Ok(())
        } else {
            Err(sys::Error::NoProgram { program: program.to_string() })
        };
        Row::new(program, commands, found, &format!("apt-get install {package}"))
    })
}
