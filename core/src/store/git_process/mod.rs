//! What is left to a `git` program: changes of other refs, so that reflogs, symbolic refs and hooks are
//! Git's own.

mod fenced;
mod program;

pub(crate) use fenced::Fenced;
pub(crate) use program::Git;
