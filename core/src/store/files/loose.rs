//! Small loose objects, written here: a lock's record and a journal's commit are a few hundred bytes.
//!
//! gix deflates each through a fresh state of some 380 KB, which costs more than all else that it
//! does for them, and saves nothing: a file takes a block at least. So what fits a block is stored
//! uncompressed, which is as good zlib (RFC 1950 and 1951, "stored") as any to Git. And it is put
//! into place by `linkat` from a file without a name, so that a kill leaves nothing behind.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use rustix::{fs::Mode, io::Errno};

use crate::store::object::Encoded;

use super::lockfile::{name_it, unnamed};

/// The largest object that is written like this, in bytes: with its header it fits the block of
/// 4 KiB that it takes in any case.
const SMALL: usize = 4_000;

/// Writes an object to where it belongs. Returns whether it did: what is larger, is there already,
/// or can't be written like this is left to gix, which also says best what is wrong.
pub(super) fn write_small(path: &Path, object: &Encoded) -> bool {
    object.bytes.len() <= SMALL && link(path, &stored(object)).is_ok()
}

fn link(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mode = Mode::from_raw_mode(0o444);
    let file = match unnamed(folder, mode) {
        Err(Errno::NOENT) => {
            fs::create_dir(folder)?;
            unnamed(folder, mode)
        }
        opened => opened,
    };
    let mut file = File::from(file?);
    file.write_all(content)?;
    Ok(name_it(&file, path)?)
}

/// Git's header and the object in one zlib stream of one stored block.
fn stored(object: &Encoded) -> Vec<u8> {
    let header = format!("{} {}\0", object.kind, object.bytes.len());
    let length = u16::try_from(header.len() + object.bytes.len()).unwrap_or(u16::MAX);
    let mut stream = Vec::with_capacity(usize::from(length) + 11);
    // Deflate with a window of 32 KiB, at the fastest level, and a check sum that makes it a
    // multiple of 31; then: the last block, stored, this long.
    stream.extend_from_slice(&[0x78, 0x01, 0x01]);
    stream.extend_from_slice(&length.to_le_bytes());
    stream.extend_from_slice(&(!length).to_le_bytes());
    stream.extend_from_slice(header.as_bytes());
    stream.extend_from_slice(&object.bytes);
    let sum = zlib_rs::adler32::adler32(1, &stream[7..]);
    stream.extend_from_slice(&sum.to_be_bytes());
    stream
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::store::{
        files::{FilesOptions, FilesStore},
        object,
    };

    fn encoded(bytes: Vec<u8>) -> Encoded {
        object::encode(&crate::store::NewValue::Blob(bytes), gix::hash::Kind::Sha1).remove(0)
    }

    #[test]
    fn git_reads_what_is_stored_up_to_the_limit_and_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(dir.path()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        git(&["init", "-q"]);
        let store = FilesStore::open(dir.path(), &FilesOptions::default()).unwrap();
        for length in [0, 1, 593, SMALL, SMALL + 1, 100_000] {
            let object = encoded((0..length).map(|at| u8::try_from(at % 251).unwrap()).collect());
            let path = store.loose.object_path(&object::to_gix(&object.id));
            assert_eq!(write_small(&path, &object), length <= SMALL, "{length}");
            store.write_object(&object).unwrap();
            assert_eq!(git(&["cat-file", "blob", &object.id.to_string()]), object.bytes);
            assert_eq!(store.read_object(&object.id).unwrap(), crate::store::Object::Blob(object.bytes));
        }
        git(&["fsck", "--strict"]);
    }

    #[test]
    fn a_damaged_object_in_its_place_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Command::new("git").args(["init", "-q"]).arg(dir.path()).status().unwrap().success());
        let store = FilesStore::open(dir.path(), &FilesOptions::default()).unwrap();
        let object = encoded(b"what a crash of the machine cut off".to_vec());
        let path = store.loose.object_path(&object::to_gix(&object.id));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        store.write_object(&object).unwrap();
        assert_eq!(store.read_object(&object.id).unwrap(), crate::store::Object::Blob(object.bytes));
    }
}
