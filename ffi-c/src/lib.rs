//! libgitlock: the core for C and C++. `docs/c-conventions.md` says what holds for every function.
//!
//! Nothing is decided here. Each function converts what it is given, calls the core, and converts
//! the answer, inside of [`boundary::enter`], which lets no panic through.

mod boundary;
mod code;
mod generated;
mod guard;
mod manager;
mod multi;
mod options;
mod text;
mod wait;

pub use boundary::*;
pub use code::*;
pub use generated::*;
pub use guard::*;
pub use manager::*;
pub use multi::*;
pub use options::*;
pub use text::*;
pub use wait::*;
