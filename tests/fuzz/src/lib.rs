//! What the targets and the seeds share: how an input is laid out, and the ground it runs on.

pub mod seeds;

use shipimg::layer::{Contents, Options, apply_layer, extract_layer, scan, unpack};
use shipimg::oci::{Descriptor, Digest, Image, Layer, media_type};
use shipimg::store::{Limits, Store};
use shipimg::sys::{dir, mount, overlay::Overlay};
use shipimg::tree::{Kind, Tree, TreePath};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What stands between two layers of an input.
pub const SEPARATOR: &[u8] = b"--layer-";

/// Bits of an input's first byte.
pub mod flag {
    /// The layers are streams of gzip.
    pub const GZIP: u8 = 1;
    /// The layers are streams of zstd.
    pub const ZSTD: u8 = 2;
    /// Checksums of headers are left as they are, and not put right.
    pub const RAW: u8 = 4;
    /// Links to directories are kept.
    pub const DIRLINKS: u8 = 8;
    /// Digests of files are taken.
    pub const CONTENTS: u8 = 16;
    /// As lowers of an overlay too.
    pub const OVERLAY: u8 = 32;
}

/// How many layers are taken of an input.
const MAX_LAYERS: usize = 6;

/// What one layer may cost here: little, so that inputs are fast and limits are met.
fn limits() -> Limits {
    Limits { inflated: 1 << 20, entries: 300, depth: 40, zstd_window_log: 20, ..Limits::default() }
}

/// One input: a byte of flags, and layers with a separator between them.
pub struct Input {
    flags: u8,
    layers: Vec<Vec<u8>>,
}

impl Input {
    /// The bytes of an input.
    #[must_use]
    pub fn bytes(flags: u8, layers: &[Vec<u8>]) -> Vec<u8> {
        [&[flags], layers.join(SEPARATOR).as_slice()].concat()
    }

    /// Takes an input apart; none where it is empty.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        let mut layers = Vec::new();
        while layers.len() + 1 < MAX_LAYERS
            && let Some(at) = rest.windows(SEPARATOR.len()).position(|w| w == SEPARATOR)
        {
            layers.push(rest[..at].to_vec());
            rest = &rest[at + SEPARATOR.len()..];
        }
        layers.push(rest.to_vec());
        if flags & (flag::RAW | flag::GZIP | flag::ZSTD) == 0 {
            layers.iter_mut().for_each(|l| put_checksums(l));
        }
        Some(Self { flags, layers })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Gives every block that looks like a header the right checksum, which a fuzzer would not find.
fn put_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// A folder in memory: `canary`, which nothing may touch, and `jail` with a store and a ground.
pub struct Ground {
    top: PathBuf,
    store: Store,
    canary: Vec<[i64; 8]>,
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// A fresh one in place of an old one. Its path is always the same, for links in inputs lead
    /// to it: `/dev/shm/shipimg-fuzz`, or `$SHIPIMG_FUZZ_GROUND`.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let top = std::env::var_os("SHIPIMG_FUZZ_GROUND").unwrap_or_else(|| "/dev/shm/shipimg-fuzz".into());
        let top = PathBuf::from(top);
        dir::remove(&top).unwrap();
        fs::create_dir_all(top.join("canary/dir")).unwrap();
        fs::create_dir_all(top.join("jail/ground")).unwrap();
        fs::write(top.join("canary/file"), "alive").unwrap();
        let store = Store::open(&top.join("jail/store")).unwrap().within(limits());
        let mut ground = Self { top, store, canary: Vec::new() };
        ground.canary = ground.look();
        ground
    }

    /// All that tells whether someone touched the canary.
    fn look(&self) -> Vec<[i64; 8]> {
        let of = |name: &str| {
            let m = fs::symlink_metadata(self.top.join(name)).unwrap();
            let (ino, links) = (m.ino().cast_signed(), m.nlink().cast_signed());
            [
                ino,
                links,
                m.mode().into(),
                m.uid().into(),
                m.gid().into(),
                m.size().cast_signed(),
                m.ctime(),
                m.ctime_nsec(),
            ]
        };
        ["canary", "canary/file", "canary/dir"].map(of).to_vec()
    }

    fn ground(&self, name: &str) -> PathBuf {
        self.top.join("jail/ground").join(name)
    }

    /// Unpacks the input's layers as one tree, applies them one by one, and stacks them where
    /// asked. All agree on whether the image is good and, if so, on every file. Nothing is left
    /// of a bad one; the canary is as it was in any case.
    ///
    /// # Panics
    /// Where one of that does not hold.
    pub fn run(&self, input: &Input) {
        let image = self.image(input);
        let contents = input.has(flag::CONTENTS).then(|| Arc::new(Contents::default()));
        let options = Options {
            parallel: Some(1),
            keep_dirlinks: input.has(flag::DIRLINKS),
            contents,
        };
        let out = self.ground("out");
        let whole = unpack(&self.store, &image, &out, &options);
        if whole.is_err() {
            assert_eq!(names(&self.ground("")), [""; 0], "{whole:?}");
        } else {
            assert_eq!(names(&self.ground("")), ["out"]);
            check_tree(&out, &image);
        }
        let chain = self.chain(&image, &options, input.has(flag::OVERLAY));
        match (&whole, &chain) {
            (Ok(_), Ok(())) => same(&out, &self.ground("chain"), true),
            (Err(_), Err(_)) => {}
            _ => panic!("at once: {whole:?}\none by one: {chain:?}"),
        }
        for layer in &image.layers {
            let _ = fs::remove_file(self.store.blob_path(&layer.descriptor.digest));
        }
        dir::remove(&self.ground("")).unwrap();
        fs::create_dir(self.ground("")).unwrap();
        assert_eq!(self.look(), self.canary, "the canary was touched");
        assert_eq!(names(&self.top), ["canary", "jail"]);
        assert_eq!(names(&self.top.join("jail")), ["ground", "store"]);
    }

    /// Puts the layers into the store and describes them as they are.
    fn image(&self, input: &Input) -> Image {
        let kind = match input.flags & (flag::GZIP | flag::ZSTD) {
            0 => media_type::LAYER,
            flag::GZIP => media_type::LAYER_GZIP,
            _ => media_type::LAYER_ZSTD,
        };
        let layer = |bytes: &Vec<u8>| {
            let descriptor = Descriptor::of(kind, bytes);
            fs::write(self.store.blob_path(&descriptor.digest), bytes).unwrap();
            let diff_id = Digest::of(&inflate(kind, bytes).unwrap_or_default());
            Layer { descriptor, chain_id: diff_id.clone(), diff_id }
        };
        let config = serde_json::json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": []}});
        Image {
            descriptor: Descriptor::of(media_type::MANIFEST, b""),
            config_descriptor: Descriptor::of(media_type::CONFIG, b""),
            config: serde_json::from_value(config).unwrap(),
            layers: input.layers.iter().map(layer).collect(),
        }
    }

    /// Applies the layers one by one, and where `stack`, as lowers too, which must agree each time.
    fn chain(&self, image: &Image, options: &Options, stack: bool) -> shipimg::layer::Result<()> {
        let chain = self.ground("chain");
        fs::create_dir(&chain).unwrap();
        let mut lowers = Vec::new();
        for (i, layer) in image.layers.iter().enumerate() {
            if stack {
                let lower = self.ground(&format!("lower{i}"));
                fs::create_dir(&lower).unwrap();
                let extracted = extract_layer(&self.store, layer, &lower, i == 0, options);
                let below = (i > 0).then_some(chain.as_path());
                let settled = extracted.and_then(|mut e| e.settle(&lower, below).map(|()| e.hides_all()));
                let applied = apply_layer(&self.store, layer, &chain, i == 0, options);
                assert_eq!(settled.is_ok(), applied.is_ok(), "as a lower: {settled:?}\napplied: {applied:?}");
                applied?;
                // As the driver does it: overlayfs knows no opaque root.
                if settled.is_ok_and(|all| all) {
                    lowers.clear();
                }
                lowers.insert(0, lower);
            } else {
                apply_layer(&self.store, layer, &chain, i == 0, options)?;
            }
        }
        if let [only] = lowers.as_slice() {
            same(&chain, only, false);
        } else if stack {
            let view = self.ground("view");
            fs::create_dir(&view).unwrap();
            Overlay { lowers: &lowers, upper: None, volatile: false }.mount(&view).unwrap();
            same(&chain, &view, false);
            mount::unmount(&view).unwrap();
        }
        Ok(())
    }
}

/// What the layer inflates to; none where it does not, or to more than is taken.
fn inflate(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut tar = Vec::new();
    let most = limits().inflated + 1;
    match kind {
        media_type::LAYER => return Some(bytes.to_vec()),
        media_type::LAYER_GZIP
            if bytes.get(257..262) == Some(b"ustar") && !bytes.starts_with(b"\x1f\x8b") =>
        {
            return Some(bytes.to_vec());
        }
        media_type::LAYER_GZIP => {
            flate2::read::MultiGzDecoder::new(bytes).take(most).read_to_end(&mut tar).ok()
        }
        _ => zstd::Decoder::new(bytes).ok()?.take(most).read_to_end(&mut tar).ok(),
    };
    Some(tar)
}

/// The names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The limits hold, and nothing of overlayfs' own is left.
fn check_tree(root: &Path, image: &Image) {
    let (limits, layers) = (limits(), image.layers.len());
    let tree = scan(root, None).unwrap();
    let files = tree.values().filter(|n| n.kind != Kind::Directory).count() as u64;
    assert!(files <= limits.entries * layers as u64, "{files} files");
    for (path, node) in &tree {
        assert!(path.depth() <= limits.depth * layers, "{path}");
        assert!(node.kind != Kind::Char(0, 0), "{path} is a whiteout");
    }
    let top = dir::Dir::open(root).unwrap();
    for path in tree.iter().filter(|(_, n)| n.kind == Kind::Directory).map(|(p, _)| p) {
        let open = top.below(path.as_path()).unwrap();
        let attributes = shipimg::sys::xattr::all_fd(&open).unwrap();
        assert!(attributes.iter().all(|(n, _)| !n.starts_with(b"trusted.overlay.")), "{path}");
    }
}

/// All files of `root`, without what differs between two copies.
fn files(root: &Path) -> Tree {
    let mut tree = scan(root, None).unwrap();
    for node in tree.values_mut() {
        (node.inode, node.same) = (None, None);
    }
    tree
}

/// Two trees have the same files; with the same begins, for some have holes of terabytes.
fn same(a: &Path, b: &Path, with_root: bool) {
    let (mut one, mut two) = (files(a), files(b));
    if !with_root {
        // The driver gives the root of an overlay its metadata.
        one.remove(&TreePath::root());
        two.remove(&TreePath::root());
    }
    for (path, node) in &one {
        assert_eq!(Some(node), two.get(path), "{path} in {} and {}", a.display(), b.display());
        if node.kind == Kind::File {
            assert_eq!(begin(a, path), begin(b, path), "{path} in {} and {}", a.display(), b.display());
        }
    }
    assert_eq!(one.len(), two.len(), "{:?}", two.keys().filter(|p| !one.contains_key(*p)).next());
}

fn begin(root: &Path, path: &TreePath) -> Vec<u8> {
    let (parent, name) = path.split().unwrap();
    let file = dir::Dir::open(root).unwrap().below(parent.as_path()).unwrap().file(name).unwrap();
    let mut bytes = Vec::new();
    file.take(8 << 10).read_to_end(&mut bytes).unwrap();
    bytes
}
