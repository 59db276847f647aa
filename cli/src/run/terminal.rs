//! The terminal: which process group has it, as a shell sees to it.

use std::{fs::File, io::IsTerminal};

use rustix::{
    process::Pid,
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

/// The controlling terminal of a run.
pub(crate) struct Terminal {
    device: File,
    /// The group of the run itself.
    own: Pid,
    /// The group of its command.
    group: Pid,
    /// The modes before the command could change them.
    modes: Option<Termios>,
    /// Whether the terminal is given at once, and not when the command asks for it.
    eager: bool,
}

impl Terminal {
    /// The terminal, if there is one: also when neither stdin nor stdout is it, for Ctrl-Z and for
    /// what opens /dev/tty to ask a password.
    pub(crate) fn of(group: u32) -> Option<Terminal> {
        let device = File::options().read(true).write(true).open("/dev/tty").ok()?;
        let group = i32::try_from(group).ok().and_then(Pid::from_raw)?;
        let modes = tcgetattr(&device).ok();
        // In a pipeline the others of the job may need the terminal: `git lock run x -- cmd | less`.
        let eager = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Some(Terminal { device, own: rustix::process::getpgrp(), group, modes, eager })
    }

    fn is_with(&self, group: Pid) -> bool {
        tcgetpgrp(&self.device).is_ok_and(|present| present == group)
    }

    /// Gives it to the command as it starts or goes on, unless that can wait.
    pub(crate) fn offer(&self) {
        if self.eager {
            self.give();
        }
    }

    /// Gives it to the command, if this job has it. Says whether it did.
    pub(crate) fn give(&self) -> bool {
        self.is_with(self.own) && set_foreground(&self.device, self.group)
    }

    /// Takes it back, if the command has it. Says whether it did.
    pub(crate) fn take_back(&self) -> bool {
        self.is_with(self.group) && set_foreground(&self.device, self.own)
    }

    /// Sets the modes back that a command left behind which was killed.
    pub(crate) fn mend(&self) {
        if let Some(modes) = self.modes.as_ref().filter(|_| self.is_with(self.own)) {
            let _ = tcsetattr(&self.device, OptionalActions::Drain, modes);
        }
    }
}

/// Stops this process, or with it its whole group (`git` itself in `git lock run`), as Ctrl-Z
/// would have done. Returns once it goes on; at once where no shell could make it go on, which the
/// kernel knows: that is why it's the default of SIGTSTP, and not SIGSTOP.
pub(crate) fn stop(whole_group: bool) {
    // SAFETY: both actions are valid to read and write, and zeroed (SIG_DFL, no flags) is a valid
    // one. The signal is dealt with before the sending call returns: raise is for this thread, and
    // kill prefers the main one, which is the only one that stops the group.
    unsafe {
        let default = std::mem::zeroed::<libc::sigaction>();
        let mut before = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGTSTP, &default, &mut before);
        if whole_group {
            libc::kill(0, libc::SIGTSTP)
        } else {
            libc::raise(libc::SIGTSTP)
        };
        libc::sigaction(libc::SIGTSTP, &before, std::ptr::null_mut());
    }
}

/// Makes a group the terminal's foreground group. From the background that is a SIGTTOU, which
/// would stop this process: it is blocked meanwhile.
fn set_foreground(device: &File, group: Pid) -> bool {
    // SAFETY: the sets are valid to write to and to read, and zeroed is a valid value.
    unsafe {
        let mut blocked = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
        let done = tcsetpgrp(device, group).is_ok();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        done
    }
}
