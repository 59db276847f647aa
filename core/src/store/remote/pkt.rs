//! Pkt-lines (gitprotocol-common): what Git's protocols are written in.

use std::io::{self, Read};

/// The most bytes that one line holds.
const LONGEST: usize = 65_516;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// Bytes.
    Data(Vec<u8>),
    /// The end of a list.
    Flush,
    /// The end of a section.
    Delimiter,
    /// The end of an answer.
    ResponseEnd,
}

/// Reads one packet.
pub(super) fn read(from: &mut (impl Read + ?Sized)) -> io::Result<Packet> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let hex = std::str::from_utf8(&head).ok().filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let length = hex.and_then(|hex| usize::from_str_radix(hex, 16).ok());
    match length {
        Some(0) => Ok(Packet::Flush),
        Some(1) => Ok(Packet::Delimiter),
        Some(2) => Ok(Packet::ResponseEnd),
        Some(length @ 4..=65_520) => {
            let mut data = vec![0; length - 4];
            from.read_exact(&mut data)?;
            Ok(Packet::Data(data))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the server doesn't speak Git's protocol")),
    }
}

/// Reads one packet's text, without the newline at its end; `None`: any packet without bytes.
pub(super) fn text(from: &mut (impl Read + ?Sized)) -> io::Result<Option<String>> {
    match read(from)? {
        Packet::Data(data) => Ok(Some(as_text(&data))),
        _ => Ok(None),
    }
}

/// The text of a packet's bytes.
pub(super) fn as_text(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

/// Adds packets with these bytes.
pub(super) fn write(out: &mut Vec<u8>, data: &[u8]) {
    for part in data.chunks(LONGEST) {
        out.extend_from_slice(format!("{:04x}", part.len() + 4).as_bytes());
        out.extend_from_slice(part);
    }
}

/// Adds a line of text.
pub(super) fn line(out: &mut Vec<u8>, text: &str) {
    write(out, format!("{text}\n").as_bytes());
}

/// The end of a list.
pub(super) const FLUSH: &[u8] = b"0000";
/// The end of a section.
pub(super) const DELIMITER: &[u8] = b"0001";

/// What comes in several channels: takes the first apart from the messages for people.
pub(super) struct SideBand<R> {
    from: R,
    rest: Vec<u8>,
    at: usize,
    over: bool,
    /// What the server wants people to read.
    pub(super) messages: String,
}

impl<R: Read> SideBand<R> {
    pub(super) fn new(from: R) -> SideBand<R> {
        SideBand { from, rest: Vec::new(), at: 0, over: false, messages: String::new() }
    }

    /// Reads to the end, so that what follows can be read too.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl<R: Read> Read for SideBand<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.rest.len() && !self.over {
            let Packet::Data(data) = read(&mut self.from)? else {
                self.over = true;
                break;
            };
            match data.split_first() {
                Some((1, _)) => (self.rest, self.at) = (data, 1),
                Some((2, message)) => {
                    if self.messages.len() < 4_096 {
                        self.messages.push_str(&String::from_utf8_lossy(message));
                    }
                }
                Some((3, message)) => return Err(io::Error::other(as_text(message))),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the server uses a channel that isn't known",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.rest.len() - self.at);
        buffer[..count].copy_from_slice(&self.rest[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        line(&mut bytes, "want it");
        bytes.extend_from_slice(DELIMITER);
        write(&mut bytes, &[7; 70_000]);
        bytes.extend_from_slice(FLUSH);
        let mut from = &*bytes;
        assert_eq!(text(&mut from).unwrap().as_deref(), Some("want it"));
        assert_eq!(read(&mut from).unwrap(), Packet::Delimiter);
        assert_eq!(read(&mut from).unwrap(), Packet::Data(vec![7; LONGEST]));
        assert_eq!(read(&mut from).unwrap(), Packet::Data(vec![7; 70_000 - LONGEST]));
        assert_eq!(read(&mut from).unwrap(), Packet::Flush);
        assert!(from.is_empty());
    }

    #[test]
    fn what_is_no_pkt_line_is_refused() {
        for bytes in [&b"0003"[..], b"fff1aaa", b"-001", b"<htm", b"+00a123456", b"00", b"0008abc"] {
            assert!(read(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn channels_are_taken_apart() {
        let mut bytes = Vec::new();
        write(&mut bytes, b"\x01one");
        write(&mut bytes, b"\x02a word\n");
        write(&mut bytes, b"\x01two");
        bytes.extend_from_slice(FLUSH);
        let mut band = SideBand::new(&*bytes);
        let mut all = String::new();
        band.read_to_string(&mut all).unwrap();
        assert_eq!((&*all, &*band.messages), ("onetwo", "a word\n"));
        let mut bytes = Vec::new();
        write(&mut bytes, b"\x03it is broken\n");
        assert_eq!(SideBand::new(&*bytes).read(&mut [0; 9]).unwrap_err().to_string(), "it is broken");
    }
}
