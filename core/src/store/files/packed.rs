//! `packed-refs`, read freshly and never judged by a growing mtime.
//!
//! Git never writes into this file: it makes another and renames it into place. So what was read
//! through a descriptor stays true as long as the path is still that file, which the descriptor's
//! being open guarantees: its inode can't be used for another.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use memchr::{memchr, memrchr};

use crate::{
    error::{Error, Result},
    store::Oid,
};

/// What the path was when it was looked at.
#[derive(Clone, Debug)]
pub(super) enum Packed {
    /// There was no such file.
    Absent,
    /// This file, whose descriptor is kept open.
    File(Arc<PackedFile>),
}

/// One state of `packed-refs`, and the open descriptor that keeps its identity.
#[derive(Debug)]
pub(super) struct PackedFile {
    _open: File,
    identity: Identity,
    content: Vec<u8>,
    sorted: bool,
}

/// Size and times guard against somebody's editor, which writes in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(meta: &fs::Metadata) -> Identity {
        Identity {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The path, and what was last read there.
#[derive(Debug)]
pub(super) struct PackedRefs {
    path: PathBuf,
    last: Mutex<Packed>,
}

impl PackedRefs {
    pub(super) fn new(path: PathBuf) -> PackedRefs {
        PackedRefs { path, last: Mutex::new(Packed::Absent) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says at this moment.
    pub(super) fn read(&self) -> Result<Packed> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*last, Packed::File(_)) && self.is_still(&last) {
            return Ok(last.clone());
        }
        let fresh =
            self.open().map_err(|error| Error::io(format_args!("can't read {}", self.path.display()), error))?;
        last.clone_from(&fresh);
        Ok(fresh)
    }

    /// Whether the path is still what it was.
    pub(super) fn is_still(&self, packed: &Packed) -> bool {
        match (packed, fs::metadata(&self.path)) {
            (Packed::File(file), Ok(meta)) => file.identity == Identity::of(&meta),
            (Packed::Absent, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    fn open(&self) -> io::Result<Packed> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Packed::Absent),
            Err(error) => return Err(error),
        };
        let identity = Identity::of(&file.metadata()?);
        let mut content = Vec::with_capacity(usize::try_from(identity.size).unwrap_or(0) + 1);
        file.read_to_end(&mut content)?;
        let header = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let sorted = header.starts_with(b"# pack-refs with:")
            && header.split(|byte| *byte == b' ').any(|word| word == b"sorted");
        Ok(Packed::File(Arc::new(PackedFile { _open: file, identity, content, sorted })))
    }
}

impl Packed {
    /// What the file says of a ref.
    pub(super) fn find(&self, name: &str) -> Option<Oid> {
        let Packed::File(file) = self else { return None };
        let entry = if file.sorted {
            let content = &file.content;
            Entries { rest: &content[lower_bound(content, name.as_bytes())..] }.next()
        } else {
            file.entries().find(|entry| entry.name == name.as_bytes())
        };
        entry.filter(|entry| entry.name == name.as_bytes()).and_then(|entry| Oid::from_hex(entry.hex))
    }

    /// Every ref whose name starts with this.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Oid)> {
        let content: &[u8] = match self {
            Packed::Absent => &[],
            Packed::File(file) if file.sorted => &file.content[lower_bound(&file.content, prefix.as_bytes())..],
            Packed::File(file) => &file.content,
        };
        let sorted = matches!(self, Packed::File(file) if file.sorted);
        Entries { rest: content }
            .take_while(move |entry| !sorted || entry.name.starts_with(prefix.as_bytes()))
            .filter(move |entry| entry.name.starts_with(prefix.as_bytes()))
            .filter_map(|entry| Some((std::str::from_utf8(entry.name).ok()?, Oid::from_hex(entry.hex)?)))
    }

    /// The file's bytes without one ref, if it is in there.
    pub(super) fn without(&self, name: &str) -> Option<Vec<u8>> {
        let Packed::File(file) = self else { return None };
        let mut kept = Vec::with_capacity(file.content.len());
        let (mut found, mut skipping) = (false, false);
        for line in file.content.split_inclusive(|byte| *byte == b'\n') {
            // A line that starts with ^ tells what the tag on the line before peels to.
            if line.first() != Some(&b'^') {
                skipping = parse(line).is_some_and(|entry| entry.name == name.as_bytes());
                found |= skipping;
            }
            if !skipping {
                kept.extend_from_slice(line);
            }
        }
        found.then_some(kept)
    }
}

impl PackedFile {
    fn entries(&self) -> Entries<'_> {
        Entries { rest: &self.content }
    }
}

struct Entry<'a> {
    hex: &'a [u8],
    name: &'a [u8],
}

struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        while !self.rest.is_empty() {
            let end = memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
            let (line, rest) = self.rest.split_at(end);
            self.rest = rest;
            if let Some(entry) = parse(line) {
                return Some(entry);
            }
        }
        None
    }
}

/// The ref on this line; `None` for the header, peeled values, and what isn't a ref.
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if matches!(line.first(), None | Some(b'#' | b'^')) {
        return None;
    }
    let space = memchr(b' ', line)?;
    Some(Entry { hex: &line[..space], name: &line[space + 1..] })
}

/// The offset of the first line whose ref isn't before `name`, in a sorted file.
fn lower_bound(content: &[u8], name: &[u8]) -> usize {
    let line_start = |at: usize| memrchr(b'\n', &content[..at]).map_or(0, |newline| newline + 1);
    let line_end = |at: usize| memchr(b'\n', &content[at..]).map_or(content.len(), |newline| at + newline + 1);
    let (mut low, mut high) = (0, content.len());
    // Everything before `low` sorts before the name, and nothing from `high` on does.
    while low < high {
        let start = line_start(low + (high - low) / 2).max(low);
        let end = line_end(start);
        match parse(&content[start..end]) {
            Some(entry) if entry.name >= name => high = start,
            Some(_) => low = end,
            // The header, or a peeled value, which goes with the line before it.
            None if start == low => low = end,
            None => match parse(&content[line_start(start - 1)..start]) {
                Some(entry) if entry.name >= name => high = line_start(start - 1),
                _ => low = end,
            },
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(content: String, sorted: bool) -> Packed {
        let open = tempfile::tempfile().unwrap();
        let identity = Identity::of(&open.metadata().unwrap());
        Packed::File(Arc::new(PackedFile { _open: open, identity, content: content.into_bytes(), sorted }))
    }

    fn hex(digit: usize) -> String {
        format!("{digit:040x}")
    }

    proptest! {
        #[test]
        fn a_sorted_file_is_searched_as_a_scan_would(
            names in proptest::collection::btree_set("refs/[a-c]{1,4}", 0..20),
            peeled in any::<u32>(),
            wanted in "refs/[a-c]{1,4}",
        ) {
            let mut content = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
            for (at, name) in names.iter().enumerate() {
                content += &format!("{} {name}\n", hex(at + 1));
                if peeled >> at & 1 == 1 {
                    content += &format!("^{}\n", hex(at + 100));
                }
            }
            let (sorted, scanned) = (packed(content.clone(), true), packed(content, false));
            prop_assert_eq!(sorted.find(&wanted), scanned.find(&wanted));
            prop_assert_eq!(sorted.find(&wanted).is_some(), names.contains(&wanted));
            let all = |packed: &Packed| packed.below(&wanted).map(|(name, id)| (name.to_owned(), id)).collect::<Vec<_>>();
            prop_assert_eq!(all(&sorted), all(&scanned));
            let rest = sorted.without(&wanted).map(|content| packed(String::from_utf8(content).unwrap(), true));
            if let Some(rest) = rest {
                prop_assert_eq!(rest.find(&wanted), None);
                for name in names.iter().filter(|name| **name != wanted) {
                    prop_assert_eq!(rest.find(name), sorted.find(name));
                }
            }
        }
    }

    #[test]
    fn a_new_file_under_the_path_is_noticed_whatever_its_mtime() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("packed-refs");
        let refs = PackedRefs::new(path.clone());
        let absent = refs.read().unwrap();
        assert!(refs.is_still(&absent));
        let put = |digit| {
            let new = dir.path().join("new");
            fs::write(&new, format!("{} refs/a\n", hex(digit))).unwrap();
            // An mtime that doesn't grow, which is what fools a cache that goes by it.
            File::options().write(true).open(&new).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        put(1);
        assert!(!refs.is_still(&absent));
        let first = refs.read().unwrap();
        assert_eq!(first.find("refs/a"), Oid::from_hex(hex(1).as_bytes()));
        put(2);
        assert!(!refs.is_still(&first));
        assert_eq!(refs.read().unwrap().find("refs/a"), Oid::from_hex(hex(2).as_bytes()));
    }
}
