//! Reading: which refs there are, and what they point at. Protocol v2 (gitprotocol-v2) where the
//! server speaks it, and v0 (gitprotocol-pack) where not.

use std::io::{self, Read};

use gix::hash;

use crate::{
    error::{Error, Result},
    error_code::ErrorCode,
    store::Oid,
};

use super::{
    pack::{self, Unpacked},
    pkt::{self, Packet, SideBand},
    transport::{self, Session},
};

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    words: Vec<String>,
    /// Whether they are those of protocol v2.
    pub(super) v2: bool,
}

impl Capabilities {
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Whether a command of v2 has this feature.
    fn offers(&self, command: &str, feature: &str) -> bool {
        self.value(command).is_some_and(|value| value.split(' ').any(|word| word == feature))
    }

    /// The hash of its objects.
    pub(super) fn hash(&self) -> Result<hash::Kind> {
        match self.value("object-format") {
            None | Some("sha1") => Ok(hash::Kind::Sha1),
            Some("sha256") => Ok(hash::Kind::Sha256),
            Some(other) => Err(Error::new(
                ErrorCode::Unsupported,
                format!("the server keeps objects of the format {:?}; use a newer gitlock", transport::plain(other)),
            )),
        }
    }
}

/// What a server says first.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeting {
    pub(super) capabilities: Capabilities,
    /// In v0 every ref; in v2 none.
    pub(super) refs: Vec<(String, Oid)>,
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server's answer can't be read: {what}"))
}

/// A server that says why it refuses.
fn is_refusal(line: &str) -> Option<&str> {
    line.strip_prefix("ERR ")
}

/// Reads what a server says first. The inner error is the server's own refusal.
pub(super) fn greeting(from: &mut dyn Read) -> io::Result<std::result::Result<Greeting, String>> {
    let mut greeting = Greeting::default();
    let mut first = true;
    loop {
        let data = match pkt::read(from)? {
            Packet::Data(data) => data,
            Packet::Flush => return Ok(Ok(greeting)),
            _ => return Err(garbled("an unexpected delimiter")),
        };
        let line = pkt::as_text(&data);
        if let Some(why) = is_refusal(&line) {
            return Ok(Err(why.to_owned()));
        }
        if line == "version 1" {
            continue;
        }
        if first && line == "version 2" {
            greeting.capabilities.v2 = true;
            first = false;
            continue;
        }
        if greeting.capabilities.v2 {
            greeting.capabilities.words.push(line);
            continue;
        }
        let (line, words) = line.split_once('\0').unwrap_or((&line, ""));
        if first {
            greeting.capabilities.words = words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            first = false;
        }
        if line.starts_with("shallow ") {
            continue;
        }
        let (id, name) = line.split_once(' ').ok_or_else(|| garbled("a ref without a name"))?;
        let id = Oid::from_hex(id.as_bytes()).ok_or_else(|| garbled("a ref without an id"))?;
        // An empty repository has a line for its capabilities alone.
        if name.starts_with("refs/") && !name.ends_with("^{}") {
            greeting.refs.push((name.to_owned(), id));
        }
    }
}

/// Asks which refs there are whose names begin like this (v2).
pub(super) fn ls_refs(
    session: &mut dyn Session,
    capabilities: &Capabilities,
    prefixes: &[String],
) -> Result<Vec<(String, Oid)>> {
    let mut request = Vec::new();
    begin(&mut request, "ls-refs", capabilities);
    for prefix in prefixes {
        pkt::line(&mut request, &format!("ref-prefix {prefix}"));
    }
    request.extend_from_slice(pkt::FLUSH);
    let answer = session.ask(&request)?;
    let read = refs_listed(answer);
    read.map_err(|error| session.trouble(error))?.map_err(|why| transport::refused(&"the server", &why))
}

fn refs_listed(from: &mut dyn Read) -> io::Result<std::result::Result<Vec<(String, Oid)>, String>> {
    let mut refs = Vec::new();
    while let Some(line) = pkt::text(from)? {
        if let Some(why) = is_refusal(&line) {
            return Ok(Err(why.to_owned()));
        }
        let mut words = line.split(' ');
        let id = words.next().unwrap_or_default();
        if id == "unborn" {
            continue;
        }
        let id = Oid::from_hex(id.as_bytes()).ok_or_else(|| garbled("a ref without an id"))?;
        refs.push((words.next().ok_or_else(|| garbled("a ref without a name"))?.to_owned(), id));
    }
    Ok(Ok(refs))
}

fn begin(request: &mut Vec<u8>, command: &str, capabilities: &Capabilities) {
    pkt::line(request, &format!("command={command}"));
    if capabilities.value("agent").is_some() {
        pkt::line(request, concat!("agent=gitlock/", env!("CARGO_PKG_VERSION")));
    }
    if let Some(format) = capabilities.value("object-format") {
        pkt::line(request, &format!("object-format={format}"));
    }
    request.extend_from_slice(pkt::DELIMITER);
}

/// Fetches objects, and of commits so many of their history, where the server can count. The inner
/// error is the server's own refusal.
pub(super) fn objects(
    session: &mut dyn Session,
    capabilities: &Capabilities,
    ids: &[Oid],
    depth: usize,
) -> Result<std::result::Result<Vec<Unpacked>, String>> {
    let hash = capabilities.hash()?;
    let read = if capabilities.v2 {
        let mut request = Vec::new();
        begin(&mut request, "fetch", capabilities);
        for id in ids {
            pkt::line(&mut request, &format!("want {id}"));
        }
        if capabilities.offers("fetch", "shallow") {
            pkt::line(&mut request, &format!("deepen {depth}"));
        }
        for word in ["no-progress", "ofs-delta", "done"] {
            pkt::line(&mut request, word);
        }
        request.extend_from_slice(pkt::FLUSH);
        packfile_section(session.ask(&request)?, hash)
    } else {
        objects_v0(session, capabilities, ids, depth, hash)?
    };
    match read {
        // What the server says when it gives up in the middle: an object is missing, for instance.
        Err(error) if error.kind() == io::ErrorKind::Other => Ok(Err(error.to_string())),
        read => read.map_err(|error| session.trouble(error)),
    }
}

type Fetched = io::Result<std::result::Result<Vec<Unpacked>, String>>;

fn packfile_section(from: &mut dyn Read, hash: hash::Kind) -> Fetched {
    loop {
        match pkt::read(from)? {
            Packet::Data(data) => {
                let line = pkt::as_text(&data);
                if let Some(why) = is_refusal(&line) {
                    return Ok(Err(why.to_owned()));
                }
                if line == "packfile" {
                    break;
                }
            }
            Packet::Delimiter => {}
            _ => return Err(garbled("an answer without a pack")),
        }
    }
    let mut band = SideBand::new(from);
    let objects = pack::read(&mut band, hash)?;
    band.finish()?;
    Ok(Ok(objects))
}

fn objects_v0(
    session: &mut dyn Session,
    capabilities: &Capabilities,
    ids: &[Oid],
    depth: usize,
    hash: hash::Kind,
) -> Result<Fetched> {
    let (wanted, shallow) = request_v0(capabilities, ids, depth);
    let band = capabilities.has("side-band-64k");
    if shallow {
        // The server says first where it cuts history off, and goes on when it has heard that all is said.
        let from = session.ask(&wanted)?;
        let cut_off = loop {
            match pkt::text(from) {
                Ok(Some(line)) if is_refusal(&line).is_some() => {
                    return Ok(Ok(Err(is_refusal(&line).unwrap_or_default().to_owned())));
                }
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = cut_off {
            return Ok(Err(error));
        }
    }
    let mut done = if shallow { Vec::new() } else { wanted };
    pkt::line(&mut done, "done");
    let from = session.ask(&done)?;
    Ok(pack_v0(from, band, hash))
}

fn request_v0(capabilities: &Capabilities, ids: &[Oid], depth: usize) -> (Vec<u8>, bool) {
    let mut words: Vec<String> = ["side-band-64k", "ofs-delta", "no-progress"]
        .into_iter()
        .filter(|word| capabilities.has(word))
        .map(str::to_owned)
        .collect();
    if capabilities.value("agent").is_some() {
        words.push(concat!("agent=gitlock/", env!("CARGO_PKG_VERSION")).to_owned());
    }
    if let Some(format) = capabilities.value("object-format") {
        words.push(format!("object-format={format}"));
    }
    let shallow = capabilities.has("shallow");
    let mut request = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        let words = if at == 0 { format!(" {}", words.join(" ")) } else { String::new() };
        pkt::line(&mut request, format!("want {id}{words}").trim_end());
    }
    if shallow {
        pkt::line(&mut request, &format!("deepen {depth}"));
    }
    request.extend_from_slice(pkt::FLUSH);
    (request, shallow)
}

fn pack_v0(from: &mut dyn Read, band: bool, hash: hash::Kind) -> Fetched {
    let line = pkt::text(from)?.unwrap_or_default();
    if let Some(why) = is_refusal(&line) {
        return Ok(Err(why.to_owned()));
    }
    if line != "NAK" {
        return Err(garbled("neither a refusal nor a pack"));
    }
    if band {
        let mut band = SideBand::new(from);
        let objects = pack::read(&mut band, hash)?;
        band.finish()?;
        return Ok(Ok(objects));
    }
    pack::read(from, hash).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn lines(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| pkt::line(&mut bytes, line));
        bytes.extend_from_slice(pkt::FLUSH);
        bytes
    }

    #[test]
    fn both_versions_of_a_greeting_are_read() {
        let v0 = lines(&[
            &format!("{ID} HEAD\0atomic object-format=sha1"),
            &format!("{ID} refs/a"),
            &format!("{ID} refs/b^{{}}"),
        ]);
        let read = greeting(&mut &*v0).unwrap().unwrap();
        assert!(read.capabilities.has("atomic") && !read.capabilities.v2);
        assert_eq!(read.refs, [("refs/a".to_owned(), Oid::from_hex(ID.as_bytes()).unwrap())]);
        let v2 = lines(&[
            "version 2",
            "agent=git/2",
            "ls-refs=unborn",
            "fetch=shallow wait-for-done",
            "object-format=sha256",
        ]);
        let read = greeting(&mut &*v2).unwrap().unwrap().capabilities;
        assert!(read.v2 && read.offers("fetch", "shallow") && !read.offers("fetch", "filter"));
        assert_eq!(read.hash().unwrap(), hash::Kind::Sha256);
        let empty = lines(&[&format!("{} capabilities^{{}}\0report-status", "0".repeat(40))]);
        assert!(greeting(&mut &*empty).unwrap().unwrap().refs.is_empty());
    }

    #[test]
    fn a_refusal_and_an_end_are_told_apart() {
        assert_eq!(greeting(&mut &*lines(&["ERR access denied"])).unwrap().unwrap_err(), "access denied");
        let cut = lines(&[&format!("{ID} refs/a\0atomic")]);
        assert_eq!(greeting(&mut &cut[..cut.len() - 4]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(greeting(&mut &*lines(&["<html>"])).is_err());
    }
}
