//! Dining philosophers: processes in every language around one table, each after two forks.
//!
//! In the *closed circle* all take the fork to their left, and only then the one to their right: each round
//! is one deadlock, which has to have exactly one victim, who lets go and tries again, so that all eat.
//! In the naive order they take them without waiting for each other, and deadlocks may come. Ordered, or
//! as a set, there is none. Whether two have one fork is seen from outside, by this process.

use std::{
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use gitlock::{
    ErrorCode,
    clock::{Clock, SystemClock},
};

use super::{
    expect::End,
    play::{Conditions, Start, read},
    role::Role,
    table::{SURFACES, Surface},
    wire::Line,
};
use crate::git::Repo;

/// Within how many milliseconds after its circle has closed a deadlock has to be found.
const FOUND_WITHIN: u64 = 2_000;

/// How they take their forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    ClosedCircle,
    Naive,
    Ordered,
    AsASet,
}

const MANNERS: [Manner; 4] = [Manner::ClosedCircle, Manner::Naive, Manner::Ordered, Manner::AsASet];

/// A table, and what has been seen at it.
struct Table<'a> {
    manner: Manner,
    meals: usize,
    start: Start<'a>,
    repo: Repo,
    /// Who eats with each fork; 0: nobody.
    forks: Vec<AtomicUsize>,
    /// Since when each one waits, on the boot clock; 0: it doesn't.
    waiting: Vec<AtomicU64>,
    /// How many have eaten, all together.
    eaten: AtomicUsize,
    round: Barrier,
    /// How long after its circle closed each deadlock was told.
    deadlocks: Mutex<Vec<u64>>,
    /// The most meals of others while one was hungry.
    patience: AtomicUsize,
}

/// Has tables of these sizes eat so many meals each.
pub(super) fn run(seats: &[usize], meals: usize, surfaces: &[String], start: Start<'_>) -> Result<(), String> {
    let chosen = |surface: &&Surface| surfaces.is_empty() || surfaces.iter().any(|name| name == surface.name);
    let surfaces: Vec<&'static Surface> = SURFACES.iter().filter(chosen).collect();
    if surfaces.is_empty() || seats.iter().any(|seats| *seats < 2) {
        return Err("a table needs a known surface and at least two seats".to_owned());
    }
    for seats in seats {
        for manner in MANNERS {
            one_table(*seats, manner, meals, &surfaces, start)?;
        }
    }
    Ok(())
}

fn one_table(
    seats: usize,
    manner: Manner,
    meals: usize,
    surfaces: &[&'static Surface],
    start: Start<'_>,
) -> Result<(), String> {
    let table = Table {
        manner,
        meals,
        start,
        repo: Repo::new(),
        forks: (0..seats).map(|_| AtomicUsize::new(0)).collect(),
        waiting: (0..seats).map(|_| AtomicU64::new(0)).collect(),
        eaten: AtomicUsize::new(0),
        round: Barrier::new(seats),
        deadlocks: Mutex::default(),
        patience: AtomicUsize::new(0),
    };
    let began = SystemClock.boot_ms();
    let results: Vec<Result<(), String>> = thread::scope(|scope| {
        let sit = |seat: usize| {
            let (table, surface) = (&table, surfaces[seat % surfaces.len()]);
            scope.spawn(move || table.sit(seat, surface))
        };
        let all: Vec<_> = (0..seats).map(sit).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("a philosopher panicked".to_owned()))).collect()
    });
    let took = (SystemClock.boot_ms() - began) as f64 / 1_000.0;
    let (eaten, patience) = (table.eaten.load(SeqCst), table.patience.load(SeqCst));
    let mut found = std::mem::take(&mut *table.deadlocks.lock().unwrap_or_else(PoisonError::into_inner));
    found.sort_unstable();
    println!(
        "{seats} philosophers, {manner:?}: {eaten} meals in {took:.1} s, at most {patience} of others while one was hungry; \
         {} deadlocks, found after {} ms (median), {} ms at most",
        found.len(),
        found.get(found.len() / 2).copied().unwrap_or(0),
        found.last().copied().unwrap_or(0),
    );
    results.into_iter().collect::<Result<(), String>>()?;
    let late = found.iter().filter(|after| **after > FOUND_WITHIN).count();
    let wanted = match manner {
        Manner::ClosedCircle => found.len() == meals,
        Manner::Naive => true,
        Manner::Ordered | Manner::AsASet => found.is_empty(),
    };
    match (eaten == seats * meals, wanted, late) {
        (false, ..) => Err(format!("{eaten} meals were eaten instead of {}", seats * meals)),
        (_, false, _) => Err(format!("{} deadlocks were found, which is not as it should be", found.len())),
        (.., 1..) => Err(format!("{late} deadlocks were found only after more than {FOUND_WITHIN} ms")),
        _ => {
            table.repo.assert_sound();
            Ok(())
        }
    }
}

/// One philosopher, as it is seen from here.
struct Philosopher<'a> {
    table: &'a Table<'a>,
    seat: usize,
    surface: &'static Surface,
    role: Role,
}

impl Table<'_> {
    fn sit(&self, seat: usize, surface: &'static Surface) -> Result<(), String> {
        let dined = self.dine(seat, surface);
        if let (Err(_), Manner::ClosedCircle) = (&dined, self.manner) {
            // The others mustn't wait for it for ever. What went wrong is told at the end.
            println!("philosopher {seat} ({}) leaves the table: {dined:?}", surface.name);
            std::process::exit(1);
        }
        dined.map_err(|why| format!("philosopher {seat} ({}): {why}", surface.name))
    }

    fn dine(&self, seat: usize, surface: &'static Surface) -> Result<(), String> {
        let mut role = (self.start)(surface, &self.repo, Conditions::default())?;
        let opened = role.link.ask(Line::new("open").with("path", self.repo.path().display()))?;
        if opened.verb != "ok" {
            return Err(format!("the repository can't be opened: {opened}"));
        }
        let mut philosopher = Philosopher { table: self, seat, surface, role };
        self.round.wait();
        for _ in 0..self.meals {
            let before = self.eaten.load(SeqCst);
            philosopher.eat()?;
            self.patience.fetch_max(self.eaten.load(SeqCst) - before - 1, SeqCst);
            if self.manner == Manner::ClosedCircle {
                self.round.wait();
            }
        }
        philosopher.role.finish()
    }

    /// When the last of those who wait now began to.
    fn closed_at(&self) -> u64 {
        self.waiting.iter().map(|since| since.load(SeqCst)).max().unwrap_or(0)
    }
}

impl Philosopher<'_> {
    /// Takes a fork. `false`: it would have been a deadlock.
    fn take(&mut self, fork: usize, also: Option<usize>) -> Result<bool, String> {
        let waiting = &self.table.waiting[self.seat];
        waiting.store(SystemClock.boot_ms(), SeqCst);
        let mut line = Line::new("acquire").with("name", format!("fork-{fork}"));
        line = line.with("owner", format!("philosopher-{}", self.seat)).with("as", format!("fork-{fork}"));
        if let Some(also) = also {
            line = line.with("also", format!("fork-{also}"));
        }
        let answer = self.role.link.ask(line)?;
        let told = SystemClock.boot_ms();
        let closed_at = self.table.closed_at();
        waiting.store(0, SeqCst);
        match read(self.surface, &answer)?.end {
            End::Ok => Ok(true),
            End::Code(ErrorCode::Deadlock) => {
                let mut found = self.table.deadlocks.lock().unwrap_or_else(PoisonError::into_inner);
                found.push(told.saturating_sub(closed_at));
                Ok(false)
            }
            _ => Err(format!("fork {fork}: {answer}")),
        }
    }

    fn put_down(&mut self, fork: usize) -> Result<(), String> {
        let answer = self.role.link.ask(Line::new("release").with("guard", format!("fork-{fork}")))?;
        if answer.verb == "ok" { Ok(()) } else { Err(format!("fork {fork} can't be put down: {answer}")) }
    }

    fn eat(&mut self) -> Result<(), String> {
        let (seats, manner) = (self.table.forks.len(), self.table.manner);
        let (mut first, mut second) = (self.seat, (self.seat + 1) % seats);
        if manner == Manner::Ordered && second < first {
            (first, second) = (second, first);
        }
        if manner == Manner::AsASet {
            if !self.take(first, Some(second))? {
                return Err("a set was in a deadlock".to_owned());
            }
            self.bite([first, second])?;
            return self.put_down(first);
        }
        let mut round = manner == Manner::ClosedCircle;
        loop {
            if !self.take(first, None)? {
                return Err("who holds nothing was in a deadlock".to_owned());
            }
            if std::mem::take(&mut round) {
                self.table.round.wait();
            }
            if self.take(second, None)? {
                break;
            }
            self.put_down(first)?;
        }
        self.bite([first, second])?;
        self.put_down(second)?;
        self.put_down(first)
    }

    /// Eats, and sees to it that nobody else has one of the forks.
    fn bite(&self, forks: [usize; 2]) -> Result<(), String> {
        for fork in forks {
            if let Err(other) = self.table.forks[fork].compare_exchange(0, self.seat + 1, SeqCst, SeqCst) {
                return Err(format!("fork {fork} is philosopher {}'s at the same time", other - 1));
            }
        }
        SystemClock.pause(Duration::from_millis(1));
        forks.iter().for_each(|fork| self.table.forks[*fork].store(0, SeqCst));
        self.table.eaten.fetch_add(1, SeqCst);
        Ok(())
    }
}
