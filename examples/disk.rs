//! Makes a disk that starts from the folder of a root: `disk ROOT EXT4 TARGET`, where EXT4 is an image
//! of the root's filesystem, which goes onto the second partition.
//!
//! `disk --fstab` prints what the root's `/etc/fstab` is to be.

use shipimg::disk::boot::{self, Arch, Ids, Options};
use shipimg::disk::gpt::Guid;
use shipimg::disk::{self, Source};
use shipimg::layer;
use shipimg::tree::{Tree, TreePath};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const IDS: Ids = Ids {
    disk: Guid::new(0x5eed_0000_0000_4000_8000_0000_0000_0001),
    esp: Guid::new(0x5eed_0000_0000_4000_8000_0000_0000_0002),
    root: Guid::new(0x5eed_0000_0000_4000_8000_0000_0000_0003),
};

/// Room that the root finds when it has started.
const GROWTH: u64 = 512 << 20;

struct Folder(PathBuf, Tree);

impl Source for Folder {
    fn tree(&self) -> &Tree {
        &self.1
    }

    fn content(&self, path: &TreePath) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(self.0.join(path.as_path()))?))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, ext4, target] = args.as_slice() else {
        print!("{}", IDS.fstab());
        return Ok(());
    };
    let source = Folder(root.into(), layer::scan(Path::new(root), None, None)?);
    let mut image = File::open(ext4)?;
    let options = Options { arch: Arch::Amd64, ids: IDS, root_size: image.metadata()?.len() + GROWTH };
    let mut write_root = |mut disk: &File, offset, _| {
        let io = |source| disk::Error::Io { action: "copy", path: ext4.into(), source };
        disk.seek(SeekFrom::Start(offset)).map_err(io)?;
        io::copy(&mut image, &mut disk).map_err(io).map(|_| ())
    };
    println!("{:#?}", boot::write(Path::new(target), &source, &options, &mut write_root)?);
    Ok(())
}
