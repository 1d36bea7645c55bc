//! check and test.

use anyhow::Result;

use crate::machine::{cargo, must, root, works};
use crate::steps::Steps;
use crate::{setup, tidy};

/// The inner loop.
pub(crate) fn check() -> Result<()> {
    let mut steps = Steps::default();
    lints(&mut steps);
    steps.run("tests without real clients", || tests(&[]));
    steps.finish()
}

/// Everything.
pub(crate) fn test() -> Result<()> {
    let mut steps = Steps::default();
    steps.run("set-up", setup::run);
    lints(&mut steps);
    steps.run("documentation", || {
        must(
            cargo(&["doc", "--workspace", "--no-deps", "--quiet"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    steps.run("fuzz targets compile", || {
        must(&mut cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]))
    });
    if setup::has_arm64() {
        steps.run("compiles for arm64", || {
            let programs = ["check", "--quiet", "-p", "lamppost", "-p", "lamppost-compat"];
            must(cargo(&programs).args(["--target", setup::ARM64]))
        });
    } else {
        println!("\n== compiles for arm64: skipped, `rustup target add {}` lets it", setup::ARM64);
    }
    if works(&mut cargo(&["deny", "--version"])) {
        steps.run("dependencies", || {
            must(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))
        });
    } else {
        println!("\n== dependencies: skipped, `cargo install cargo-deny` brings the tool");
    }
    steps.run("tests", || tests(&["--features", "lamppost/peers"]));
    steps.finish()
}

fn lints(steps: &mut Steps) {
    steps.run("format", || must(&mut cargo(&["fmt", "--all", "--check"])));
    steps.run("tidy", tidy::run);
    steps.run("lints", || {
        must(&mut cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            "lamppost/peers",
            "--",
            "-D",
            "warnings",
        ]))
    });
}

fn tests(more: &[&str]) -> Result<()> {
    // Tests that need what this machine does not give say so there.
    let skipped = root().join("target/tmp/skipped-tests");
    drop(std::fs::remove_file(&skipped));
    let done = must(&mut runner(more));
    if let Ok(lines) = std::fs::read_to_string(&skipped) {
        println!(
            "\n== not run on this machine (LAMPPOST_REQUIRE_MOUNTS=1 makes them fail):\n{lines}"
        );
    }
    done
}

/// nextest where it is installed, otherwise cargo's own runner.
pub(crate) fn runner(more: &[&str]) -> std::process::Command {
    let runner: &[&str] = if works(&mut cargo(&["nextest", "--version"])) {
        &["nextest", "run", "--no-fail-fast", "--workspace"]
    } else {
        &["test", "--no-fail-fast", "--workspace"]
    };
    let mut command = cargo(runner);
    command.args(more);
    command
}
