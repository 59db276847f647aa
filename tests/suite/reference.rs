//! The rules of several locks beside a plain lock table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use gitlock::lock::fault::Faults;
use gitlock_tests::reference::{RULES, history};

#[test]
fn random_histories_agree_with_a_plain_lock_table() {
    for seed in 1..=2_000 {
        if let Err(why) = history(seed, Faults::NONE) {
            panic!("history {seed}: {why}");
        }
    }
}

#[test]
fn each_rule_that_is_left_out_is_noticed() {
    for fault in RULES {
        let found = (1..5_000_u64).find_map(|seed| history(seed, Faults::only(*fault)).err());
        assert!(found.is_some(), "{}", fault.as_str());
    }
}
