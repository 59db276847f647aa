//! Packs (gitformat-pack): a small one is written with what is pushed, whole objects only; one is
//! read with what was fetched, deltas resolved.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use gix::{
    hash,
    objs::{Kind, compute_hash},
    zlib::{Compression, Decompress, FlushDecompress, Status, stream::deflate},
};

use crate::store::{
    Oid,
    object::{Encoded, from_gix},
};

/// The largest object that is read, in bytes. Records are of 1 MiB at most.
const LARGEST: usize = 16 << 20;

/// The largest pack that is read.
const LARGEST_PACK: u64 = 256 << 20;

/// Below this deflating costs more than it saves.
const DEFLATED_FROM: usize = 1 << 10;

/// An object as it was read.
pub(super) struct Unpacked {
    pub(super) id: Oid,
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent a damaged pack: {what}"))
}

/// The pack of these objects, and of those in another pack that Git made (none if that is empty).
pub(super) fn write(objects: &[&Encoded], other: &[u8], hash: hash::Kind) -> io::Result<Vec<u8>> {
    let mut count = u32::try_from(objects.len()).ok();
    let mut more: &[u8] = &[];
    if !other.is_empty() {
        let end = other.len().checked_sub(hash.len_in_bytes()).filter(|end| *end >= 12);
        let end = end.filter(|_| other.starts_with(b"PACK\0\0\0\x02"));
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "`git pack-objects` wrote no pack");
        more = &other[12..end.ok_or_else(unreadable)?];
        let theirs = u32::from_be_bytes([other[8], other[9], other[10], other[11]]);
        count = count.and_then(|count| count.checked_add(theirs));
    }
    let mut pack = Vec::with_capacity(more.len() + 4_096);
    pack.extend_from_slice(b"PACK\0\0\0\x02");
    let count = count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has too many objects"))?;
    pack.extend_from_slice(&count.to_be_bytes());
    // As it stands: where a delta says how far back its base is, both move alike.
    pack.extend_from_slice(more);
    for object in objects {
        let kind = match object.kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        let mut size = object.bytes.len();
        let mut byte = (kind << 4) | (size & 15) as u8;
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = (size & 127) as u8;
            size >>= 7;
        }
        pack.push(byte);
        if object.bytes.len() < DEFLATED_FROM {
            store(&mut pack, &object.bytes);
        } else {
            let mut deflated = deflate::Write::new(&mut pack, Compression::BEST_SPEED);
            deflated.write_all(&object.bytes)?;
            deflated.flush()?;
        }
    }
    let sum = trailer(&pack, hash)?;
    pack.extend_from_slice(sum.as_bytes());
    Ok(pack)
}

/// A zlib stream of one stored block.
fn store(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&[0x78, 0x01, 0x01]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&zlib_rs::adler32::adler32(1, bytes).to_be_bytes());
}

fn trailer(pack: &[u8], hash: hash::Kind) -> io::Result<Oid> {
    let mut hasher = hash::hasher(hash);
    hasher.update(pack);
    hasher.try_finalize().map(|id| from_gix(&id)).map_err(|error| io::Error::other(error.to_string()))
}

/// Reads a pack to its end, and gives every object in it.
pub(super) fn read(from: &mut dyn Read, hash: hash::Kind) -> io::Result<Vec<Unpacked>> {
    let mut pack = Vec::new();
    from.take(LARGEST_PACK).read_to_end(&mut pack)?;
    let length = hash.len_in_bytes();
    let Some(body) = pack.len().checked_sub(length).filter(|body| *body >= 12) else {
        return Err(damaged("it is cut off"));
    };
    if pack[..4] != *b"PACK" || !matches!(pack[4..8], [0, 0, 0, 2 | 3]) {
        return Err(damaged("it is of another version"));
    }
    if trailer(&pack[..body], hash)?.as_bytes() != &pack[body..] {
        return Err(damaged("its check sum is wrong"));
    }
    let count = u32::from_be_bytes([pack[8], pack[9], pack[10], pack[11]]);
    let mut objects = Reader { bytes: &pack[..body], at: 12, found: Vec::new(), by_offset: HashMap::new(), hash };
    for _ in 0..count {
        objects.next()?;
    }
    Ok(objects.found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Vec<Unpacked>,
    /// Which of those begins where.
    by_offset: HashMap<usize, usize>,
    hash: hash::Kind,
}

impl Reader<'_> {
    fn byte(&mut self) -> io::Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| damaged("an object is cut off"))?;
        self.at += 1;
        Ok(byte)
    }

    fn next(&mut self) -> io::Result<()> {
        let begins = self.at;
        let mut byte = self.byte()?;
        let kind = (byte >> 4) & 7;
        let mut size = usize::from(byte & 15);
        let mut shift = 4;
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            size |=
                usize::from(byte & 127).checked_shl(shift).filter(|_| shift < 32).ok_or_else(|| damaged("a size"))?;
            shift += 7;
        }
        if size > LARGEST {
            return Err(damaged("an object is too large"));
        }
        let (kind, bytes) = match kind {
            1 => (Kind::Commit, self.inflate(size)?),
            2 => (Kind::Tree, self.inflate(size)?),
            3 => (Kind::Blob, self.inflate(size)?),
            4 => (Kind::Tag, self.inflate(size)?),
            6 | 7 => {
                let base = if kind == 6 { self.base_by_offset(begins)? } else { self.base_by_id()? };
                let delta = self.inflate(size)?;
                let base = &self.found[base];
                (base.kind, apply(&base.bytes, &delta)?)
            }
            _ => return Err(damaged("an object of no known kind")),
        };
        let id = compute_hash(self.hash, kind, &bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.by_offset.insert(begins, self.found.len());
        self.found.push(Unpacked { id: from_gix(&id), kind, bytes });
        Ok(())
    }

    fn base_by_offset(&mut self, begins: usize) -> io::Result<usize> {
        let mut byte = self.byte()?;
        let mut back = usize::from(byte & 127);
        while byte & 0x80 != 0 {
            byte = self.byte()?;
            back = back.checked_add(1).and_then(|back| back.checked_mul(128)).ok_or_else(|| damaged("an offset"))?;
            back += usize::from(byte & 127);
        }
        let base = begins.checked_sub(back).and_then(|base| self.by_offset.get(&base));
        base.copied().ok_or_else(|| damaged("a delta without its base"))
    }

    fn base_by_id(&mut self) -> io::Result<usize> {
        let end = self.at + self.hash.len_in_bytes();
        let id = self.bytes.get(self.at..end).and_then(Oid::from_bytes).ok_or_else(|| damaged("it is cut off"))?;
        self.at = end;
        // Bases may come later in a pack; servers put them first, and nobody asked for a thin one.
        self.found.iter().position(|found| found.id == id).ok_or_else(|| damaged("a delta without its base"))
    }

    fn inflate(&mut self, size: usize) -> io::Result<Vec<u8>> {
        // One byte more, so that a stream that is too long shows.
        let mut out = vec![0; size + 1];
        let mut stream = Decompress::new();
        loop {
            let (read, written) = (stream.total_in() as usize, stream.total_out() as usize);
            let input = &self.bytes[self.at + read..];
            let status = stream.decompress(input, &mut out[written..], FlushDecompress::None);
            let status = status.map_err(|error| damaged(&error.to_string()))?;
            let moved = (stream.total_in() as usize, stream.total_out() as usize) != (read, written);
            match status {
                Status::StreamEnd => break,
                _ if moved => {}
                _ => return Err(damaged("an object is cut off")),
            }
        }
        if stream.total_out() as usize != size {
            return Err(damaged("an object has another size"));
        }
        self.at += stream.total_in() as usize;
        out.truncate(size);
        Ok(out)
    }
}

/// What a delta makes of its base.
fn apply(base: &[u8], delta: &[u8]) -> io::Result<Vec<u8>> {
    let cut = || damaged("a delta is cut off");
    let mut delta = delta.iter().copied();
    let number = |delta: &mut dyn Iterator<Item = u8>| -> io::Result<usize> {
        let (mut value, mut shift) = (0usize, 0);
        loop {
            let byte = delta.next().ok_or_else(cut)?;
            value |= usize::from(byte & 127).checked_shl(shift).filter(|_| shift < 32).ok_or_else(cut)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    };
    let (from, size) = (number(&mut delta)?, number(&mut delta)?);
    if from != base.len() || size > LARGEST {
        return Err(damaged("a delta of another base"));
    }
    let mut out = Vec::with_capacity(size);
    while let Some(command) = delta.next() {
        if command & 0x80 != 0 {
            let mut take = |bits: std::ops::Range<u8>| -> io::Result<usize> {
                let mut value = 0;
                for (at, bit) in bits.enumerate() {
                    if command & (1 << bit) != 0 {
                        value |= usize::from(delta.next().ok_or_else(cut)?) << (8 * at);
                    }
                }
                Ok(value)
            };
            let (offset, length) = (take(0..4)?, take(4..7)?);
            let length = if length == 0 { 0x10000 } else { length };
            out.extend_from_slice(base.get(offset..offset + length).ok_or_else(cut)?);
        } else if command != 0 {
            for _ in 0..command {
                out.push(delta.next().ok_or_else(cut)?);
            }
        } else {
            return Err(damaged("a delta with a command that isn't known"));
        }
    }
    if out.len() != size {
        return Err(damaged("a delta makes another size"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::store::{NewValue, object::encode};

    const HASH: hash::Kind = hash::Kind::Sha1;

    fn git(at: &std::path::Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("git")
            .arg("-C")
            .arg(at)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        output.stdout
    }

    #[test]
    fn git_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare"], b"");
        let objects: Vec<Encoded> = [0, 15, 16, 1023, 1024, 70_000]
            .into_iter()
            .flat_map(|size| encode(&NewValue::Blob((0..=255).cycle().take(size).collect()), HASH))
            .collect();
        let pack = write(&objects.iter().collect::<Vec<_>>(), &[], HASH).unwrap();
        git(dir.path(), &["unpack-objects", "-q", "--strict"], &pack);
        for object in &objects {
            assert_eq!(git(dir.path(), &["cat-file", "blob", &object.id.to_string()], b""), object.bytes);
        }
        let read = read(&mut &*pack, HASH).unwrap();
        assert!(read.iter().zip(&objects).all(|(read, object)| read.id == object.id && read.bytes == object.bytes));
        assert_eq!(read.len(), objects.len());
    }

    #[test]
    fn what_git_writes_is_read_deltas_too() {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "--bare"], b"");
        let mut ids = String::new();
        for round in 0..20 {
            let text: String =
                (0..2_000).map(|line| format!("line {}\n", if line == 77 * round { 0 } else { line })).collect();
            ids += &String::from_utf8(git(dir.path(), &["hash-object", "-w", "--stdin"], text.as_bytes())).unwrap();
        }
        for options in [&["--delta-base-offset"][..], &[]] {
            let arguments = [&["pack-objects", "-q", "--stdout", "--window=20"], options].concat();
            let pack = git(dir.path(), &arguments, ids.as_bytes());
            assert!(pack.len() < 30_000, "it has deltas");
            let own = encode(&NewValue::Blob(b"a record".to_vec()), HASH).remove(0);
            let both = write(&[&own], &pack, HASH).unwrap();
            assert_eq!(self::read(&mut &*both, HASH).unwrap().len(), 21, "a pack with one more");
            git(dir.path(), &["index-pack", "--stdin", "--strict"], &both);
            let mut read: Vec<String> =
                read(&mut &*pack, HASH).unwrap().iter().map(|found| found.id.to_string()).collect();
            let mut wanted: Vec<&str> = ids.lines().collect();
            read.sort();
            wanted.sort_unstable();
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn a_damaged_pack_is_refused_wherever_it_is_damaged() {
        let object = encode(&NewValue::Blob(b"a record".to_vec()), HASH).remove(0);
        let pack = write(&[&object], &[], HASH).unwrap();
        for at in 0..pack.len() {
            let mut damaged = pack.clone();
            damaged[at] ^= 0x41;
            assert!(read(&mut &*damaged, HASH).is_err(), "byte {at}");
            assert!(read(&mut &pack[..at], HASH).is_err(), "cut at {at}");
        }
    }
}
