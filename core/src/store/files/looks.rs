//! Which part of the log of recent objects has yet to be looked through, so that a command needn't read all of it.
//!
//! An object may vanish for as long as a `git prune` runs that began before its ref was in place.
//! So an entry has to be looked at again until it is older than that, and then never more. When
//! somebody looked, and how long the log was then, stands in a file.

use std::{
    fs,
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
};

use super::FilesStore;

/// The file.
const NOTES: &str = "looks";

/// For how long after an object was written a prune may take it, in milliseconds: longer than any takes.
const UNSETTLED: u64 = 600_000;

/// How far the notes of looks are apart at least, in milliseconds, but for the newest.
const APART: u64 = 60_000;

/// After a look nobody looks through everything again for so long, in milliseconds, and longer where
/// there is much to look through: another millisecond for each of so many bytes.
const PAUSE: u64 = 1_000;
const PAUSE_FOR_BYTES: u64 = 16 << 10;

/// How much of the log's end is looked through in any case, in bytes: about as much as the busiest
/// lock writes in that time.
const TAIL: u64 = 3 << 20;

/// One look: when, at which generation of the log, and how long that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    at: u64,
    inode: u64,
    size: u64,
}

/// What has to be looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// From this byte of the generation before on; `None`: nothing of it.
    pub(super) before: Option<u64>,
    /// From this byte of the present generation on.
    pub(super) present: u64,
}

impl Window {
    /// All of the log.
    pub(super) const EVERYTHING: Window = Window { before: Some(0), present: 0 };

    /// The end of it, of a log whose generations are this long.
    fn end(self, present: u64, before: u64) -> Window {
        let earlier = before.saturating_sub(TAIL.saturating_sub(present));
        Window {
            before: self.before.map(|from| from.max(earlier)).filter(|_| present < TAIL),
            present: self.present.max(present.saturating_sub(TAIL)),
        }
    }
}

/// Begins a look through all that isn't settled, and notes it; if somebody looked just now, or
/// begins to at this moment, only through the end.
pub(super) fn begin(store: &FilesStore) -> Window {
    // Where nothing can be noted nothing is known.
    note(store).unwrap_or(Window::EVERYTHING)
}

/// The newest of the log, as it is at this moment: more than anybody can have written since it was read.
pub(super) fn newest(store: &FilesStore) -> Window {
    let size = |name: &str| fs::metadata(store.common_dir().join("gitlock").join(name)).map_or(0, |meta| meta.size());
    Window::EVERYTHING.end(size("recent"), size("recent.1"))
}

/// Begins a new generation of the log, unless it isn't `full` that is the present one: the one before it
/// is dropped, after `look` had a look at it. Returns whether there is another now.
pub(super) fn rotate(store: &FilesStore, full: &fs::File, look: impl FnOnce()) -> io::Result<bool> {
    // Whoever comes second would throw the new generation over the old one.
    let Ok(_notes) = store.lock_notes(NOTES) else { return Ok(false) };
    let path = store.state_file("recent")?;
    if fs::metadata(&path).is_ok_and(|meta| meta.ino() == full.metadata().map_or(0, |meta| meta.ino())) {
        look();
        fs::rename(&path, path.with_extension("1"))?;
    }
    Ok(true)
}

fn note(store: &FilesStore) -> io::Result<Window> {
    let mut notes = store.lock_notes(NOTES)?;
    let mut text = String::new();
    notes.file.read_to_string(&mut text)?;
    let state = |name: &str| {
        let meta = fs::metadata(store.common_dir().join("gitlock").join(name));
        meta.map_or((0, 0), |meta| (meta.ino(), meta.size()))
    };
    let now = store.rules.clock.now().wall;
    let present = state("recent");
    let before = state("recent.1");
    // Of a clock that was set back nothing can be told.
    let mut looks: Vec<Look> = text.lines().filter_map(parse).filter(|look| look.at <= now).collect();
    let window = window(&looks, now, present.0, before.0);
    let much = present.1.saturating_sub(window.present) + window.before.map_or(0, |from| before.1.saturating_sub(from));
    if looks.last().is_some_and(|last| now - last.at < PAUSE + much / PAUSE_FOR_BYTES) {
        return Ok(window.end(present.1, before.1));
    }
    add(&mut looks, Look { at: now, inode: present.0, size: present.1 });
    let text: String = looks.iter().map(|look| format!("{} {} {}\n", look.at, look.inode, look.size)).collect();
    notes.file.rewind()?;
    notes.file.set_len(0)?;
    notes.file.write_all(text.as_bytes())?;
    Ok(window)
}

fn parse(line: &str) -> Option<Look> {
    let mut numbers = line.split(' ').map(str::parse);
    let mut number = || numbers.next()?.ok();
    Some(Look { at: number()?, inode: number()?, size: number()? })
}

/// What stood in the log before the last look that is long enough ago is settled.
fn window(looks: &[Look], now: u64, present: u64, before: u64) -> Window {
    match looks.iter().rfind(|look| look.at + UNSETTLED <= now) {
        Some(settled) if settled.inode == present => Window { before: None, present: settled.size },
        Some(settled) if settled.inode == before => Window { before: Some(settled.size), present: 0 },
        _ => Window::EVERYTHING,
    }
}

/// Adds a look, and drops those that no window will ever begin at.
fn add(looks: &mut Vec<Look>, new: Look) {
    let settled = looks.iter().rposition(|look| look.at + UNSETTLED <= new.at).unwrap_or(0);
    looks.drain(..settled);
    if let [.., earlier, _] = looks[..]
        && new.at - earlier.at < APART
    {
        looks.pop();
    }
    looks.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, inode: u64, size: u64) -> Look {
        Look { at, inode, size }
    }

    #[test]
    fn only_what_is_settled_is_left_out() {
        let looks = [look(0, 1, 100), look(60_000, 1, 200), look(120_000, 2, 50)];
        let all = Window::EVERYTHING;
        assert_eq!(window(&looks, UNSETTLED - 1, 2, 1), all, "nothing is");
        assert_eq!(window(&looks, UNSETTLED, 2, 1), Window { before: Some(100), present: 0 });
        assert_eq!(window(&looks, UNSETTLED + 60_000, 2, 1), Window { before: Some(200), present: 0 });
        assert_eq!(window(&looks, UNSETTLED + 120_000, 2, 1), Window { before: None, present: 50 });
        assert_eq!(window(&looks, UNSETTLED + 120_000, 4, 3), all, "both generations are newer");
    }

    #[test]
    fn a_short_look_reaches_into_the_generation_before() {
        let all = Window::EVERYTHING;
        assert_eq!(all.end(2 * TAIL, TAIL), Window { before: None, present: TAIL });
        assert_eq!(all.end(TAIL - 10, TAIL), Window { before: Some(TAIL - 10), present: 0 });
        assert_eq!(all.end(10, 20), all);
        let present = Window { before: None, present: 5 };
        assert_eq!(present.end(10, 20), present);
    }

    #[test]
    fn the_notes_stay_few_and_reach_back_far_enough() {
        let mut looks = Vec::new();
        for second in 0..10_000 {
            let now = second * 1_000;
            add(&mut looks, look(now, 1, second));
            assert!(looks.len() < 15, "{looks:?}");
            let window = window(&looks, now, 1, 0);
            let settled = now.saturating_sub(UNSETTLED) / 1_000;
            let from = if window.before.is_none() { window.present } else { 0 };
            assert!(from <= settled && settled - from <= 2 * APART / 1_000, "{second}: {from} for {settled}");
        }
    }
}
