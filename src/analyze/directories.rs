//! Directories as a tree of names: a path that is deep has many directories above it, and their paths together are
//! as long as it is deep times its length.

use super::report::Sum;
use crate::tree::TreePath;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A directory with all that is below it.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Its own name; empty of the root.
    pub name: Box<[u8]>,
    /// The one that it lies in, by its number; none of the root.
    pub parent: Option<usize>,
    /// The files below it.
    pub sum: Sum,
}

/// The path of the directory of this number.
#[must_use]
pub fn path(all: &[Directory], number: usize) -> TreePath {
    let up = std::iter::successors(all.get(number), |d| all.get(d.parent?));
    let mut names: Vec<&[u8]> = up.map(|d| &*d.name).filter(|name| !name.is_empty()).collect();
    names.reverse();
    TreePath::root().join(OsStr::from_bytes(&names.join(&b'/')))
}

/// Directories while files are added to them.
#[derive(Default)]
pub(super) struct Directories {
    all: Vec<Directory>,
    /// By the one that each lies in, and its name.
    numbers: HashMap<(usize, Box<[u8]>), usize>,
    last: Option<(TreePath, usize)>,
}

impl Directories {
    /// Adds a file; gives the number of its directory.
    pub(super) fn add(&mut self, file: &TreePath, sum: Sum) -> usize {
        let parent = file.split().map_or_else(TreePath::root, |(parent, _)| parent);
        let number = match &self.last {
            Some((path, number)) if *path == parent => *number,
            _ => self.number(&parent),
        };
        self.all[number].sum.add(sum);
        self.last = Some((parent, number));
        number
    }

    fn number(&mut self, path: &TreePath) -> usize {
        if self.all.is_empty() {
            self.all.push(Directory { name: Box::default(), parent: None, sum: Sum::default() });
        }
        let names = path.as_bytes().split(|b| *b == b'/').filter(|name| !name.is_empty());
        names.fold(0, |parent, name| {
            let all = &mut self.all;
            *self.numbers.entry((parent, name.into())).or_insert_with(|| {
                all.push(Directory { name: name.into(), parent: Some(parent), sum: Sum::default() });
                all.len() - 1
            })
        })
    }

    /// All of them, each with what is in those that lie in it.
    pub(super) fn summed(mut self) -> Vec<Directory> {
        for number in (0..self.all.len()).rev() {
            let sum = self.all[number].sum;
            if let Some(parent) = self.all[number].parent {
                self.all[parent].sum.add(sum);
            }
        }
        self.all
    }
}

/// The directories of two images side by side, each once, by its numbers in both; those of one directory by name,
/// before what is behind it.
pub(super) fn pairs(old: &[Directory], new: &[Directory]) -> Vec<(Option<usize>, Option<usize>)> {
    // Both as one: the number of the parent there, the name, the numbers of both.
    type Both<'a> = (usize, &'a [u8], (Option<usize>, Option<usize>));
    let mut all: Vec<Both> = Vec::new();
    let mut known: HashMap<(usize, &[u8]), usize> = HashMap::new();
    for (is_new, side) in [(false, old), (true, new)] {
        let mut places: Vec<usize> = Vec::with_capacity(side.len());
        for (number, directory) in side.iter().enumerate() {
            // The root lies in nothing.
            let parent = directory.parent.map_or(usize::MAX, |parent| places[parent]);
            let place = *known.entry((parent, &*directory.name)).or_insert_with(|| {
                all.push((parent, &*directory.name, (None, None)));
                all.len() - 1
            });
            let numbers = &mut all[place].2;
            *(if is_new { &mut numbers.1 } else { &mut numbers.0 }) = Some(number);
            places.push(place);
        }
    }
    let mut below: HashMap<usize, Vec<usize>> = HashMap::new();
    for (place, (parent, ..)) in all.iter().enumerate() {
        below.entry(*parent).or_default().push(place);
    }
    let (mut todo, mut pairs) = (vec![usize::MAX], Vec::with_capacity(all.len()));
    while let Some(place) = todo.pop() {
        pairs.extend(all.get(place).map(|(.., numbers)| *numbers));
        let mut children = below.remove(&place).unwrap_or_default();
        children.sort_by(|a, b| all[*b].1.cmp(all[*a].1));
        todo.extend(children);
    }
    pairs
}
