//! What a wait shows: one line on a terminal, rewritten in place; elsewhere nothing, or on request
//! a line per change.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use gitlock::{
    WaitProgress,
    clock::{Clock, SystemClock},
};

use crate::{
    duration::show,
    moment,
    output::{holder_words, plain, tell},
};

/// How often the line on a terminal is drawn again: it shows how long the lock has been held.
const TICK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// One line, rewritten in place.
    InPlace,
    /// One line per change.
    Lines,
}

/// Shows a wait until it is dropped.
pub(crate) struct WaitDisplay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What the manager told last, and when, on the boot clock.
    progress: Option<(WaitProgress, u64)>,
    news: bool,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitDisplay {
    /// A display if stderr is a terminal, or if one was asked for.
    pub(crate) fn new(verbose: bool) -> Option<WaitDisplay> {
        let style = match (std::io::stderr().is_terminal(), verbose) {
            (true, false) => Style::InPlace,
            (_, true) => Style::Lines,
            (false, false) => return None,
        };
        let shared = Arc::new(Shared::default());
        let there = shared.clone();
        // Without a thread the wait is as good, and only less to look at.
        let thread = std::thread::Builder::new().name("display".to_owned()).spawn(move || draw(&there, style)).ok()?;
        Some(WaitDisplay { shared, thread: Some(thread) })
    }

    /// What to give to [`gitlock::LockRequest::on_wait`]. It doesn't block.
    pub(crate) fn listener(&self) -> impl FnMut(&WaitProgress) + Send + 'static {
        let shared = self.shared.clone();
        move |progress| {
            let mut state = shared.lock();
            state.progress = Some((progress.clone(), SystemClock.boot_ms()));
            state.news = true;
            shared.changed.notify_one();
        }
    }
}

impl Drop for WaitDisplay {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_one();
        // So that nothing is drawn over what comes next.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn draw(shared: &Shared, style: Style) {
    let (mut drawn, mut last) = (false, None);
    let mut state = shared.lock();
    while !state.over {
        let news = std::mem::take(&mut state.news);
        if let Some((progress, at)) = state.progress.clone() {
            // A terminal may block: whoever has news must not.
            drop(state);
            let line = describe(&progress, SystemClock.boot_ms().saturating_sub(at));
            match style {
                Style::InPlace => {
                    let _ = write!(std::io::stderr(), "\r\x1b[K{}", fit(&line, width()));
                    drawn = true;
                }
                Style::Lines if news => {
                    let shown = what_changes(&progress);
                    if last.as_ref() != Some(&shown) {
                        tell(&format!("git-lock: waiting for {line}"));
                        last = Some(shown);
                    }
                }
                Style::Lines => {}
            }
            state = shared.lock();
        }
        if !state.news && !state.over {
            state = shared.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
    drop(state);
    if drawn {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// What a new line is worth: who holds, and the place. A renewal isn't.
fn what_changes(progress: &WaitProgress) -> (Vec<String>, usize, usize) {
    let holders = progress.status.everybody().map(|held| held.holder.claim.id.clone()).collect();
    (holders, progress.ahead, progress.status.queue.len())
}

/// The wait in one line, `elapsed` milliseconds after it was told.
fn describe(progress: &WaitProgress, elapsed: u64) -> String {
    let status = &progress.status;
    let place = format!("place {} of {}", progress.ahead + 1, status.queue.len().max(progress.ahead + 1));
    let held = match (status.everybody().next(), &status.problem) {
        (Some(first), _) => {
            let more = match status.everybody().count() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            format!(
                "held for {}, until {}, by {}{more}",
                show(first.held_for + Duration::from_millis(elapsed)),
                moment::clock_time(first.holder.ends_at()),
                holder_words(&first.holder),
            )
        }
        (None, Some(problem)) => plain(problem),
        (None, None) => "free by now".to_owned(),
    };
    format!("{}: {place}; {held}", plain(status.name.as_str()))
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// Cuts a line that would wrap: a wrapped one can't be rewritten in place.
fn fit(line: &str, width: usize) -> String {
    let most = width.saturating_sub(1);
    if line.chars().count() <= most {
        return line.to_owned();
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn a_long_line_is_cut_before_it_wraps() {
        assert_eq!(fit("abcdef", 7), "abcdef");
        assert_eq!(fit("abcdef", 6), "abcd…");
        assert_eq!(fit("éééééé", 6), "éééé…");
        assert_eq!(fit("abc", 0), "…");
    }
}
