//! What the tests share: repositories made by real Git, and Git as the judge.

pub mod behaviour;
pub mod breakers;
pub mod git;
pub mod packer;
