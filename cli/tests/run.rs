//! `git lock run`: exit codes, signals, the terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod common;

use common::*;

#[test]
fn the_commands_exit_code_is_passed_through() {
    let repo = Repo::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        let output = done(&repo, &["run", "build", "--", "sh", "-c", script]);
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(code), ""), "{script}");
        free(&repo, "build");
    }
}

#[test]
fn what_cannot_be_started_is_126_or_127_and_releases_the_lock() {
    let repo = Repo::new();
    fails(&repo, &["run", "build", "--", "no-such-command-anywhere"], 127, "INVALID_ARGUMENT");
    fails(&repo, &["run", "build", "--", "/"], 126, "INVALID_ARGUMENT");
    free(&repo, "build");
}

#[test]
fn the_command_knows_its_lock() {
    let repo = Repo::new();
    let script = "printf '%s\\n' \"$GIT_LOCK_NAME\" \"$GIT_LOCK_TOKEN\" && git-lock-binary extend && \
                  git-lock-binary extend build --ttl 1h && git-lock-binary status build";
    let script = script.replace("git-lock-binary", env!("CARGO_BIN_EXE_git-lock"));
    let said = ok(&repo, &["run", "--reason", "why", "build", "--", "sh", "-c", &script]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "build");
    let token = json(&repo, &["log", "build"])["entries"][0]["token"].to_string();
    assert_eq!(lines[1], token);
    assert!(said.contains(&format!("token {token}")) && said.contains("\"why\""), "{said}");
    free(&repo, "build");
}

#[test]
fn with_json_the_run_is_told_on_stderr() {
    let repo = Repo::new();
    let output = done(&repo, &["--json", "run", "build", "--", "sh", "-c", "echo out; exit 5"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(5), "out\n"));
    let told: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!((&told["exitCode"], &told["run"]["name"]), (&5.into(), &"build".into()));
    assert!(told["run"]["token"].is_u64() && told["run"]["id"].is_string());
}

#[test]
fn the_lease_is_renewed_while_the_command_runs() {
    let repo = Repo::new();
    let go = repo.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
    let mut run = Running::start(&mut lock(&repo, &["run", "--ttl", "1s", "build", "--", "sh", "-c", &script]));
    held(&repo, "build");
    let until = now() + 3_500;
    while now() < until {
        fails(&repo, &["acquire", "-n", "build"], 1, "HELD");
        pause(100);
    }
    assert!(!run.is_over());
    std::fs::write(go, "").unwrap();
    let output = run.end();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    assert_eq!(json(&repo, &["log", "build"])["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn runs_take_turns() {
    let repo = Repo::new();
    let log = repo.path().join("log");
    let script = format!("echo in >> {0}; sleep 0.02; echo out >> {0}", log.display());
    let runs: Vec<Running> =
        (0..12).map(|_| Running::start(&mut lock(&repo, &["run", "build", "--", "sh", "-c", &script]))).collect();
    for run in runs {
        let output = run.end();
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    }
    assert_eq!(std::fs::read_to_string(log).unwrap(), "in\nout\n".repeat(12));
    repo.assert_sound();
}

#[test]
fn signals_are_passed_on_to_the_whole_group() {
    let repo = Repo::new();
    let names = [
        (libc::SIGTERM, "TERM"),
        (libc::SIGHUP, "HUP"),
        (libc::SIGINT, "INT"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
    ];
    for (signal, name) in names {
        let (ready, told) = (repo.path().join(format!("ready-{name}")), repo.path().join(format!("told-{name}")));
        // bash, because a background process of it may still trap SIGINT.
        let script = format!(
            "trap 'wait; exit 40' {name}; \
             bash -c 'trap \"echo told > {}; exit\" {name}; echo > {}; while :; do sleep 0.02; done' & \
             while :; do wait; done",
            told.display(),
            ready.display()
        );
        let script = format!("set -m; set +m; {script}");
        let run = Running::start(&mut lock(&repo, &["run", "build", "--", "bash", "-c", &script]));
        eventually("it is ready", || ready.exists());
        if matches!(name, "INT" | "QUIT") {
            // A shell's background process ignores these two; the command itself must still hear.
            run.signal(signal);
            pause(100);
            send(-group_of(&repo, "build"), libc::SIGTERM);
            assert_eq!(run.end().status.code(), Some(143), "{name}");
        } else {
            run.signal(signal);
            let output = run.end();
            assert_eq!(output.status.code(), Some(40), "{name}: {}", err(&output));
            assert_eq!(std::fs::read_to_string(told).unwrap(), "told\n", "{name}");
        }
        free(&repo, "build");
    }
    for (signal, name) in [(libc::SIGINT, "INT"), (libc::SIGQUIT, "QUIT"), (libc::SIGTERM, "TERM")] {
        let ready = repo.path().join(format!("again-{name}"));
        let script = format!("trap 'exit 41' {name}; echo > {}; while :; do sleep 0.02; done", ready.display());
        let run = Running::start(&mut lock(&repo, &["run", "build", "--", "sh", "-c", &script]));
        eventually("it is ready", || ready.exists());
        run.signal(signal);
        assert_eq!(run.end().status.code(), Some(41), "{name}");
    }
}

#[test]
fn a_command_that_a_passed_on_signal_kills_is_128_and_the_signal() {
    let repo = Repo::new();
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2] {
        let ready = repo.path().join(format!("ready-{signal}"));
        let script = format!("echo > {}; exec sleep 1000", ready.display());
        let run = Running::start(&mut lock(&repo, &["run", "build", "--", "sh", "-c", &script]));
        eventually("it is ready", || ready.exists());
        run.signal(signal);
        assert_eq!(run.end().status.code(), Some(128 + signal));
        free(&repo, "build");
    }
}

#[test]
fn what_the_command_leaves_in_the_background_goes_on_without_the_lock() {
    let repo = Repo::new();
    let (go, late) = (repo.path().join("go"), repo.path().join("late"));
    let script = format!(
        "(until [ -e {} ]; do sleep 0.02; done; echo late > {}) > /dev/null 2>&1 &",
        go.display(),
        late.display()
    );
    ok(&repo, &["run", "build", "--", "sh", "-c", &script]);
    free(&repo, "build");
    ok(&repo, &["run", "-n", "build", "--", "true"]);
    std::fs::write(go, "").unwrap();
    assert_eq!(line_of(&late), "late");
}

#[test]
fn nothing_of_the_run_is_left_open_in_the_command() {
    let repo = Repo::new();
    let count = ["sh", "-c", "ls /proc/self/fd | wc -l"];
    // Whoever started the tests may have left some open.
    let mut plain = std::process::Command::new(count[0]);
    let plain = clean(&mut plain).args(&count[1..]).output().unwrap();
    assert_eq!(ok(&repo, &[&["run", "build", "--"], &count[..]].concat()), out(&plain));
}

#[test]
fn max_hold_stops_a_command_that_hangs() {
    let repo = Repo::new();
    let told = repo.path().join("told");
    let script = format!(
        "exec 2> /dev/null; trap 'echo stopped > {}; exit 9' TERM; while :; do sleep 0.02; done",
        told.display()
    );
    let hold = ["run", "--max-hold", "300ms", "--ttl", "20s", "build", "--", "sh", "-c"];
    let begun = now();
    let error = fails(&repo, &[&hold[..], &[&script]].concat(), 3, "LOCK_LOST");
    assert!(error["message"].as_str().unwrap().contains("--max-hold"), "{error}");
    assert_eq!(line_of(&told), "stopped", "it was asked first");
    assert!(now() - begun < 18_000, "it didn't take the whole lease");
    free(&repo, "build");
    // One that doesn't listen is killed when the lease ends.
    let hold = ["run", "--max-hold", "100ms", "--ttl", "1s", "build", "--", "sh", "-c"];
    fails(
        &repo,
        &[&hold[..], &["exec 2> /dev/null; trap '' TERM; while :; do sleep 0.02; done"]].concat(),
        3,
        "LOCK_LOST",
    );
    free(&repo, "build");
}

#[test]
fn the_command_has_the_terminal() {
    let repo = Repo::new();
    let mut terminal = Pty::start(&repo, "git-lock run build -- sh -c 'echo ready; read x; echo got $x'; echo over $?");
    terminal.shows("ready");
    terminal.press(b"hello\n");
    terminal.shows("got hello");
    terminal.shows("over 0");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_command_in_a_pipeline_gets_the_terminal_when_it_asks() {
    let repo = Repo::new();
    let script =
        "set -m; git-lock run build -- sh -c 'echo ready >&2; read x < /dev/tty; echo got $x' | cat; echo over";
    let mut terminal = Pty::start(&repo, script);
    terminal.shows("ready");
    terminal.press(b"hello\n");
    terminal.shows("got hello");
    terminal.shows("over");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn control_c_goes_to_the_command() {
    let repo = Repo::new();
    let script = "set -m; git-lock run build -- sh -c 'trap \"echo heard; exit 44\" INT; echo ready; while :; do sleep 0.05; done'; echo over $?";
    let mut terminal = Pty::start(&repo, script);
    terminal.shows("ready");
    terminal.press(b"\x03");
    terminal.shows("over 44");
    assert_eq!(terminal.seen().matches("heard").count(), 1, "{:?}", terminal.seen());
    assert_eq!(terminal.end(), Some(0));
    free(&repo, "build");
}

#[test]
fn control_z_stops_the_job_and_fg_goes_on() {
    let repo = Repo::new();
    for command in ["git-lock", "git lock"] {
        let script = format!(
            "set -m; {command} run --ttl 1m build -- sh -c 'echo ready; read x; echo got $x'; echo stopped; \
             git-lock status build; fg; echo over $?"
        );
        let mut terminal = Pty::start(&repo, &script);
        terminal.shows("ready");
        terminal.press(b"\x1a");
        terminal.shows("stopped");
        terminal.shows("build: held");
        pause(200);
        terminal.press(b"hello\n");
        terminal.shows("got hello");
        terminal.shows("over 0");
        assert_eq!(terminal.end(), Some(0), "{command}");
        free(&repo, "build");
    }
}

#[test]
fn a_job_whose_stdin_is_no_terminal_stops_and_goes_on_too() {
    let repo = Repo::new();
    // Nothing that forks: a vfork(2) whose child is stopped keeps its parent from stopping.
    let script = "set -m; git-lock run build -- sh -c 'echo ready; exec sleep 4' < /dev/null; echo stopped; \
                  git-lock status build; fg; echo over $?";
    let mut terminal = Pty::start(&repo, script);
    terminal.shows("ready");
    terminal.press(b"\x1a");
    terminal.shows("stopped");
    terminal.shows("build: held");
    terminal.shows("over 0");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_command_that_is_stopped_by_hand_keeps_its_lock() {
    let repo = Repo::new();
    let run = Running::start(&mut lock(
        &repo,
        &["run", "--ttl", "500ms", "build", "--", "sh", "-c", "echo $$ > pid; exec sleep 1000"],
    ));
    let pid: i32 = line_of(&repo.path().join("pid")).parse().unwrap();
    send(pid, libc::SIGSTOP);
    pause(1_200);
    assert_eq!(status(&repo, "build")["held"], true);
    send(pid, libc::SIGCONT);
    run.signal(libc::SIGTERM);
    let output = run.end();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(143), ""));
}

#[test]
fn a_run_in_a_run_dies_with_it() {
    let repo = Repo::new();
    let inner = format!("{} run inner -- sh -c 'echo $$ > pid; exec sleep 1000'", env!("CARGO_BIN_EXE_git-lock"));
    let run = Running::start(&mut lock(&repo, &["run", "outer", "--", "sh", "-c", &inner]));
    let pid: i32 = line_of(&repo.path().join("pid")).parse().unwrap();
    run.signal(libc::SIGKILL);
    eventually("the innermost command is dead", || !runs(pid));
    ok(&repo, &["run", "--wait", "30s", "inner", "--", "true"]);
    ok(&repo, &["run", "--wait", "30s", "outer", "--", "true"]);
}

#[test]
fn control_z_where_nobody_could_say_fg_stops_nothing() {
    let repo = Repo::new();
    // The shell leads the session and has no job control, so its group is an orphan.
    let mut terminal = Pty::start(&repo, "git-lock run build -- sh -c 'echo ready; read x; echo got $x'; echo over $?");
    terminal.shows("ready");
    terminal.press(b"\x1a");
    pause(200);
    terminal.press(b"hello\n");
    terminal.shows("got hello");
    terminal.shows("over 0");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn control_z_stops_a_wait_too() {
    let repo = Repo::new();
    let handle = ok(&repo, &["acquire", "build", "--ttl", "1h"]);
    let mut terminal = Pty::start(&repo, "set -m; git-lock run build -- echo served; echo stopped; fg; echo over $?");
    terminal.shows("place 1 of 1");
    terminal.press(b"\x1a");
    terminal.shows("stopped");
    ok(&repo, &["release", handle.trim()]);
    terminal.shows("served");
    terminal.shows("over 0");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_job_that_was_stopped_for_longer_than_its_lease_does_not_go_on() {
    let repo = Repo::new();
    let went_on = repo.path().join("went-on");
    let script = format!(
        "set -m; git-lock run --ttl 500ms build -- sh -c 'echo ready; read x; echo > {}'; echo stopped; \
         git-lock run build -- echo another has it; fg; echo over $?",
        went_on.display()
    );
    let mut terminal = Pty::start(&repo, &script);
    terminal.shows("ready");
    terminal.press(b"\x1a");
    terminal.shows("another has it");
    terminal.press(b"hello\n");
    terminal.shows("over 3");
    assert!(!went_on.exists());
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_killed_command_leaves_the_terminal_usable() {
    let repo = Repo::new();
    let script = "git-lock run build -- sh -c 'stty -echo -icanon; kill -9 $$'; echo code $?; stty -a";
    let terminal = Pty::start(&repo, script);
    terminal.shows("code 137");
    terminal.shows("echoke");
    let modes = terminal.seen();
    assert!(!modes.contains("-icanon") && !modes.contains(" -echo "), "{modes}");
    assert_eq!(terminal.end(), Some(0));
}
