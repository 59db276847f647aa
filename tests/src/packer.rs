//! `git pack-refs --all`, taken apart into its steps, and a clock that runs them in the gaps of a
//! transaction: so every way in which the two can interleave is met on purpose.

#![allow(clippy::expect_used)] // a test that can't touch its repository can't go on

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gitlock::{
    clock::{Clock, SystemClock},
    lock::Now,
};

/// One `git pack-refs --all`, step by step, as refs/files-backend.c and refs/packed-backend.c do it.
#[derive(Debug)]
pub struct Packer {
    git_dir: PathBuf,
    under: String,
    refs: BTreeMap<String, String>,
    loose: Vec<(String, String)>,
}

impl Packer {
    /// One that has done nothing yet.
    pub fn new(git_dir: &Path) -> Packer {
        Packer::under(git_dir, "refs")
    }

    /// One that packs only what is below this folder, as `git pack-refs --include` does.
    pub fn under(git_dir: &Path, folder: &str) -> Packer {
        let (git_dir, under) = (git_dir.to_owned(), folder.to_owned());
        Packer { git_dir, under, refs: BTreeMap::new(), loose: Vec::new() }
    }

    /// The whole of it, from lock to prune, if nobody else is packing.
    pub fn run(mut self) -> bool {
        if !self.lock() {
            return false;
        }
        self.read();
        self.rename();
        self.unlock();
        self.prune();
        true
    }

    /// Takes packed-refs.lock, if nobody else has it.
    pub fn lock(&mut self) -> bool {
        match File::create_new(self.git_dir.join("packed-refs.lock")) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => panic_with(&error),
        }
    }

    /// Reads packed-refs, and the loose refs without their locks.
    pub fn read(&mut self) {
        let packed = fs::read_to_string(self.git_dir.join("packed-refs")).unwrap_or_default();
        for line in packed.lines().filter(|line| !line.starts_with(['#', '^'])) {
            let (id, name) = line.split_once(' ').expect("a line of packed-refs");
            self.refs.insert(name.to_owned(), id.to_owned());
        }
        self.read_loose(&self.under.clone());
        self.refs.extend(self.loose.iter().cloned());
    }

    fn read_loose(&mut self, name: &str) {
        let Ok(entries) = fs::read_dir(self.git_dir.join(name)) else { return };
        for entry in entries.flatten() {
            let full = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self.read_loose(&full);
            } else if !full.ends_with(".lock")
                && let Ok(id) = fs::read_to_string(entry.path())
            {
                self.loose.push((full, id.trim().to_owned()));
            }
        }
    }

    /// Writes what was read to a new file, and puts that in place.
    pub fn rename(&mut self) {
        let new = self.git_dir.join("packed-refs.new");
        let lines: String = self.refs.iter().map(|(name, id)| format!("{id} {name}\n")).collect();
        fs::write(&new, format!("# pack-refs with: peeled fully-peeled sorted \n{lines}")).expect("packed-refs.new");
        fs::rename(&new, self.git_dir.join("packed-refs")).expect("packed-refs");
    }

    /// Gives packed-refs.lock back.
    pub fn unlock(&mut self) {
        fs::remove_file(self.git_dir.join("packed-refs.lock")).expect("our lock");
    }

    /// Removes the loose refs that are packed now and haven't changed, each under its lock.
    pub fn prune(&mut self) {
        for (name, id) in &self.loose {
            let (path, lock) = (self.git_dir.join(name), self.git_dir.join(format!("{name}.lock")));
            if File::create_new(&lock).is_ok() {
                if fs::read_to_string(&path).is_ok_and(|now| now.trim() == id) {
                    fs::remove_file(&path).expect("a loose ref");
                }
                fs::remove_file(&lock).expect("our lock");
            }
        }
    }
}

#[allow(clippy::panic)] // only in tests
fn panic_with(error: &std::io::Error) -> ! {
    panic!("packed-refs.lock: {error}")
}

/// How many steps [`Schedule`] has.
pub const STEPS: usize = 4;

/// At which pause of a transaction each step is made; 0 is before it.
pub type Schedule = [usize; STEPS];

/// Every order of the steps and of `pauses` pauses.
pub fn schedules(pauses: usize) -> impl Iterator<Item = Schedule> {
    let slots = pauses + 1;
    (0..slots.pow(4))
        .map(move |n| [n / slots.pow(3), n / slots.pow(2) % slots, n / slots % slots, n % slots])
        .filter(|at| at.is_sorted())
}

/// A packer that works by a schedule.
#[derive(Debug)]
pub struct Scheduled {
    packer: Packer,
    schedule: Schedule,
    done: usize,
    pauses: usize,
}

impl Scheduled {
    /// One that makes its first steps at once, if its schedule says so.
    pub fn start(git_dir: &Path, schedule: Schedule) -> Scheduled {
        let mut scheduled = Scheduled { packer: Packer::new(git_dir), schedule, done: 0, pauses: 0 };
        scheduled.catch_up();
        scheduled
    }

    fn catch_up(&mut self) {
        while self.done < STEPS && self.schedule[self.done] <= self.pauses && self.step() {}
    }

    /// Makes the next step. Returns whether it could be made.
    fn step(&mut self) -> bool {
        match self.done {
            0 => {
                if !self.packer.lock() {
                    return false;
                }
            }
            1 => self.packer.read(),
            2 => self.packer.rename(),
            3 => self.packer.unlock(),
            _ => return false,
        }
        self.done += 1;
        true
    }

    /// The transaction has come to one of its gaps.
    pub fn gap(&mut self) {
        self.pauses += 1;
        self.catch_up();
    }

    /// The transaction waits for somebody, so it is the packer's turn.
    pub fn turn(&mut self) {
        self.step();
    }

    /// Makes what is left of the steps.
    pub fn finish(&mut self) {
        while self.step() {}
        assert_eq!(self.done, STEPS, "packed-refs.lock is free after the transaction");
        self.packer.prune();
    }
}

/// What a transaction pauses for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It has come to a gap between two of its steps.
    Gap,
    /// It waits for a lock.
    Wait,
}

/// The machine's clock, except that its pauses belong to the test.
#[derive(Clone)]
pub struct ScriptedClock(Arc<Mutex<dyn FnMut(Pause) + Send>>);

impl ScriptedClock {
    /// A clock whose every pause calls this.
    pub fn new(script: impl FnMut(Pause) + Send + 'static) -> ScriptedClock {
        ScriptedClock(Arc::new(Mutex::new(script)))
    }
}

impl std::fmt::Debug for ScriptedClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScriptedClock")
    }
}

impl Clock for ScriptedClock {
    fn now(&self) -> Now {
        SystemClock.now()
    }

    fn pause(&self, duration: Duration) {
        // The gaps that `faults` opens are all this long, and no wait for a lock is.
        let pause = if duration == Duration::from_millis(2) { Pause::Gap } else { Pause::Wait };
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(pause);
        if pause == Pause::Wait {
            SystemClock.pause(Duration::from_micros(10));
        }
    }
}
