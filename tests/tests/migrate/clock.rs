//! Two hosts whose clocks are decades apart.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use signet_tests::lab::command::clean;
use signet_tests::{Home, Lab, Run};

use super::{Two, migrate, migrations, state, text};

/// A library for `LD_PRELOAD` under which the clock is so many seconds off.
fn wrong_clock(lab: &Lab, seconds: i64) -> PathBuf {
    let dir = lab.fresh_dir("c");
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    let code = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n\
                int clock_gettime(clockid_t id, struct timespec *at) {\n\
                int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
                int done = real(id, at);\n\
                if (id == CLOCK_REALTIME) at->tv_sec += SHIFT;\n\
                return done; }\n";
    fs::write(&source, code).expect("the lab's directory is ours");
    clean("gcc")
        .args(["-shared", "-fPIC", &format!("-DSHIFT={seconds}LL"), "-o"])
        .args([&library, &source])
        .run()
        .ok();
    library
}

/// Starts the agent of a home with another clock; it listens when this returns.
fn with_clock(home: &Home, library: &Path) -> Child {
    home.signet().args(["agent", "stop"]).run().ok();
    let mut agent = home.signetd();
    agent.env("LD_PRELOAD", library).arg("--background");
    agent.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut agent = agent.spawn().expect("it starts");
    let mut said = String::new();
    // It closes this end once it listens.
    let mut stderr = agent.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut said).expect("it is text");
    assert!(home.agent_pid().is_some(), "{said}");
    agent
}

#[test]
fn no_clock_matters() {
    let lab = Lab::builder().build();
    let two = Two::new(&lab);
    let years = 365 * 24 * 3600;
    let agents = [
        with_clock(&two.old, &wrong_clock(&lab, -40 * years)),
        with_clock(&two.new, &wrong_clock(&lab, 30 * years)),
    ];
    let receipt = two.received();
    let begun = migrations(&two.old)[0]["begun"].to_string();
    assert!(
        begun.starts_with("\"198"),
        "the old host's clock is right: {begun}"
    );
    let note = two.file("note");
    migrate(&two.old, &["finish", text(&receipt), "-o", text(&note)]).ok();
    migrate(&two.new, &["receive", text(&note)]).ok();
    assert_eq!(
        (state(&two.old), state(&two.new)),
        ("retired".into(), "closed".into())
    );
    for (home, mut agent) in [&two.old, &two.new].into_iter().zip(agents) {
        home.signet().args(["agent", "stop"]).run().ok();
        agent.wait().expect("it ends");
    }
}
