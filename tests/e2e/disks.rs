//! Disks with partitions, read by the kernel and by the tools of gdisk, fdisk,
//! dosfstools and mtools.

use crate::common::images::{Made, path};
use crate::common::layout::Tar;
use crate::common::user::User;
use crate::common::{TestStore, collect, need_root, ok, succeeded};
use shipimg::disk::boot::{self, Arch, Ids, Options, Report};
use shipimg::disk::gpt::{Guid, Place};
use shipimg::disk::{Error, Source};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

const OPTIONS: Options = Options {
    arch: Arch::Amd64,
    ids: Ids {
        disk: Guid::new(0x0d15_c000_0000_4000_8000_0000_0000_0001),
        esp: Guid::new(0x1234_abcd_0000_4000_8000_0000_0000_0002),
        root: Guid::new(0x0007_0000_0000_4000_8000_0000_0000_0003),
    },
    root_size: (20 << 20) + 1,
};
const LOADER: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// A root of files that look like a system's.
fn root() -> Made {
    let mut root = Made::new();
    for dir in ["boot", "etc", "usr", "usr/lib", "usr/lib/systemd", "usr/lib/systemd/boot"] {
        root.dir(dir);
    }
    root.dir("usr/lib/systemd/boot/efi");
    root.file(LOADER, 100_000, b"loader");
    root.file("etc/os-release", 0, b"ID=debian\nPRETTY_NAME=\"Debian 12\"\n");
    root.file("boot/vmlinuz-6.1.0-28-amd64", 8_000_001, b"kernel");
    root.file("boot/initrd.img-6.1.0-28-amd64", 40 << 20, b"initrd");
    // As many as take a directory of several clusters.
    for i in 0..40 {
        root.file(&format!("boot/vmlinuz-5.10.0-{i}-amd64"), 0, format!("kernel {i}").as_bytes());
    }
    root
}

fn disk(root: &dyn Source, target: &Path) -> Report {
    let mut write_root = |file: &fs::File, offset, length| {
        assert_eq!(length, 21 << 20);
        file.write_all_at(b"the root begins", offset).unwrap();
        file.write_all_at(b"the root ends", offset + length - 13).unwrap();
        Ok(())
    };
    boot::write(target, root, &OPTIONS, &mut write_root).unwrap()
}

/// A device with partitions, for as long as the value lives.
struct Loop(String);

impl Loop {
    fn new(args: &[&str]) -> Self {
        Self(ok("losetup", &[&["-r", "-f", "--show"], args].concat()).trim().to_string())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        ok("losetup", &["-d", &self.0]);
    }
}

#[test]
fn a_disk_is_what_tools_and_the_kernel_expect() {
    need_root();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let target = dir.path().join("x.img");
    fs::write(&target, "old").unwrap();
    let root = root();
    let report = disk(&root, &target);
    assert_eq!((report.kernels.len(), report.warnings.len()), (41, 40));
    assert_eq!(fs::metadata(&target).unwrap().len(), report.size);
    assert!(fs::metadata(&target).unwrap().blocks() * 512 < 100 << 20);
    let image = target.to_str().unwrap();
    let said = ok("sgdisk", &["-v", image]);
    assert!(said.contains("No problems found"), "{said}");
    ok("sfdisk", &["--verify", image]);
    let table = ok("sfdisk", &["--dump", image]);
    for want in ["label-id: 0D15C000-0000-4000-8000-000000000001", "first-lba: 34", "start=        2048"] {
        assert!(table.contains(want), "{table}");
    }
    for line in [
        r#"type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=1234ABCD-0000-4000-8000-000000000002, name="esp""#,
        r#"type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=00070000-0000-4000-8000-000000000003, name="root""#,
    ] {
        assert!(table.contains(line), "{table}");
    }

    for place in [report.esp, report.root] {
        let want = format!("start={:>12}, size={:>12}", place.offset / 512, place.size / 512);
        assert!(table.contains(&want), "{table}");
    }
    // Not every kernel that runs tests reads such tables and FAT; scripts/test-boot has one that does.
    let part =
        |p: Place| Loop::new(&["-o", &p.offset.to_string(), "--sizelimit", &p.size.to_string(), image]);
    let esp = part(report.esp);
    let checked = ok("fsck.vfat", &["-nv", &esp.0]);
    assert!(checked.contains("/dev/loop") && !checked.contains("differ"), "{checked}");
    let seen = dir.path().join("esp");
    fs::create_dir(&seen).unwrap();
    ok("mcopy", &["-n", "-s", "-i", &esp.0, "::/EFI", "::/debian", "::/loader", seen.to_str().unwrap()]);
    for (to, from) in [
        ("EFI/BOOT/BOOTX64.EFI", LOADER),
        ("EFI/systemd/systemd-bootx64.efi", LOADER),
        ("debian/6.1.0-28-amd64/linux", "boot/vmlinuz-6.1.0-28-amd64"),
        ("debian/6.1.0-28-amd64/initrd.img", "boot/initrd.img-6.1.0-28-amd64"),
        ("debian/5.10.0-39-amd64/linux", "boot/vmlinuz-5.10.0-39-amd64"),
    ] {
        let mut content = Vec::new();
        root.content(&path(from)).unwrap().read_to_end(&mut content).unwrap();
        assert!(fs::read(seen.join(to)).unwrap() == content, "{to}");
    }
    assert_eq!(fs::read_dir(seen.join("debian")).unwrap().count(), 41);
    assert_eq!(fs::read_dir(seen.join("loader/entries")).unwrap().count(), 41);
    let entry = fs::read_to_string(seen.join("loader/entries/debian-6.1.0-28-amd64.conf")).unwrap();
    assert!(entry.contains("root=PARTUUID=00070000-0000-4000-8000-000000000003 rw"), "{entry}");
    let mut bytes = Vec::new();
    fs::File::open(&part(report.root).0).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"the root begins") && bytes.ends_with(b"the root ends"));

    let again = dir.path().join("y.img");
    disk(&root, &again);
    ok("cmp", &[&target, &again]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_disk_that_fails_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("x.img");
    fs::write(&target, "old").unwrap();
    let mut without = root();
    without.tree.remove(&path(LOADER));
    let mut huge = root();
    huge.tree.get_mut(&path("boot/vmlinuz-6.1.0-28-amd64")).unwrap().size = 1 << 32;
    for source in [without, huge] {
        let e = boot::write(&target, &source, &OPTIONS, &mut |_, _, _| Ok(())).unwrap_err();
        assert!(matches!(e, Error::NoBootLoader { .. } | Error::Unfit { .. }), "{e}");
    }
    let mut fails = |_: &fs::File, _, length| Err(Error::TooSmall { size: length, needed: length + 1 });
    assert!(boot::write(&target, &root(), &OPTIONS, &mut fails).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A tar of a root with these files, and the folders that they need.
fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let dirs = ["boot/", "etc/", "usr/", "usr/lib/", "usr/lib/systemd/", "usr/lib/systemd/boot/"];
    let tar = dirs.iter().fold(Tar::new().dir("./"), |tar, dir| tar.dir(dir));
    let tar = tar.dir("usr/lib/systemd/boot/efi/");
    files.iter().fold(tar, |tar, (name, content)| tar.file(name, content)).finish()
}

/// The sectors of the partition with the root, as a place.
fn root_of(disk: &str) -> Place {
    let table: serde_json::Value = serde_json::from_str(&ok("sfdisk", &["--json", disk])).unwrap();
    let root = &table["partitiontable"]["partitions"][1];
    Place { offset: root["start"].as_u64().unwrap() * 512, size: root["size"].as_u64().unwrap() * 512 }
}

#[test]
fn mkimg_makes_disks_of_images() {
    need_root();
    let (store, user) = (TestStore::new(), User::new());
    let kernel = [("boot/vmlinuz-6.1", &b"kernel"[..]), ("boot/initrd.img-6.1", b"initrd")];
    let whole = [&kernel[..], &[(LOADER, b"loader"), ("etc/fstab", b"none of this\n")]].concat();
    // The same files for both: identifiers are made from them, not from when they were imported.
    let import = |mut command: Command, tar: &Path, name: &str, time: &str| {
        let command = command.env("SOURCE_DATE_EPOCH", time).arg("import").arg(tar).arg(name);
        succeeded(&["import", name], &collect(command));
    };
    for (name, files) in
        [("whole", &whole[..]), ("no-loader", &kernel), ("no-kernel", &[(LOADER, b"loader")])]
    {
        let tar = user.home().join(format!("{name}.tar"));
        fs::write(&tar, tarred(files)).unwrap();
        user.give(&tar);
        import(store.command(), &tar, name, "1700000000");
        import(user.shipimg(), &tar, name, "1600000000");
    }
    let at = |name: &str| user.home().join(name).to_str().unwrap().to_string();
    let made = |more: &[&str]| {
        store.ok(&[&["mkimg", "--from", "whole", "--disk", &at("x.img")], more].concat());
        root_of(&at("x.img"))
    };

    // Sizes are those of the root's partition.
    assert_eq!(made(&["--size", "300M"]).size, 300 << 20);
    let least = made(&["--shrink"]).size;
    assert!(least < 32 << 20, "{least}");
    let free = made(&["--free", "200M"]).size;
    assert!((200 << 20..240 << 20).contains(&free), "{free}");

    // Without root, and without a loop device, the same bytes.
    let place = made(&[]);
    user.ok(&["mkimg", "--from", "whole", "--disk", &at("y.img")]);
    user.ok(&["mkimg", "--from", "whole", &format!("disk:{}", at("z.img"))]);
    for other in ["y.img", "z.img"] {
        ok("cmp", &[at("x.img"), at(other)]);
    }
    ok("sgdisk", &["-v", &at("x.img")]);
    let bytes = fs::read(at("x.img")).unwrap();
    let from = usize::try_from(place.offset).unwrap();
    fs::write(at("root"), &bytes[from..from + usize::try_from(place.size).unwrap()]).unwrap();
    ok("e2fsck", &["-fn", &at("root")]);
    let fstab = ok("debugfs", &["-R", "cat etc/fstab", &at("root")]);
    assert!(fstab.contains(" / ext4 rw,") && !fstab.contains("none of this"), "{fstab}");

    let said = store.fails(10, &["mkimg", "--from", "no-loader", "--disk", &at("x.img")]);
    assert!(said.contains("the root has no boot loader /usr/lib/systemd/boot/efi/systemd-boot"), "{said}");
    assert!(fs::read(at("x.img")).unwrap() == bytes);
    let out = store.output(&["mkimg", "--from", "no-kernel", "--disk", &at("x.img")]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("the root has no kernel /boot/vmlinuz-*"), "{said}");
    // Told before anything is fetched.
    let args = ["mkimg", "--suite", "bookworm", "--arch", "i386", "--disk", &at("i386.img")];
    let said = store.fails(7, &args);
    assert!(said.contains("architecture i386") && !said.contains("indexes"), "{said}");
}
