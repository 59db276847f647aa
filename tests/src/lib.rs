//! What the tests share: repositories made by real Git, and Git as the judge.

pub mod git;
pub mod model;
