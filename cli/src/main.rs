//! `git lock`: locks in a Git repository, from the command line.

fn main() {}
