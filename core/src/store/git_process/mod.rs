//! What is left to a `git` program: the refs of repositories whose format only Git reads, and changes of other
//! refs, so that reflogs, symbolic refs and hooks are Git's own.

mod fenced;
mod process;
pub(super) mod program;
mod refs;
mod send;

pub(crate) use fenced::Fenced;
pub(crate) use program::{Git, find};
pub(crate) use refs::{GitRefs, Swap, Swapped};
pub(crate) use send::{Descent, ToPush};
