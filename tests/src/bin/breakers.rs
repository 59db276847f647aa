//! `breakers COUNT`: two breakers of one stale `.lock` at once, that many times.

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let report = gitlock_tests::breakers::run(count, gitlock::lock::fault::Faults::NONE);
    println!(
        "{} stale locks, two breakers each: {} times two winners, {} times none (the first won {}, the second {})",
        report.rounds, report.two_winners, report.no_winner, report.wins[0], report.wins[1]
    );
    std::process::exit(i32::from(report.two_winners + report.no_winner != 0));
}
