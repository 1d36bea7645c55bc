//! dist: a Debian package of the program, with all that it brings made by the program itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::machine::{cargo, must, output, root, works};

/// The tool that makes the package.
const CARGO_DEB: &str = "3.8.0";

/// The small executable behind names such as sendmail.
const COMPAT: &str = "lamppost-compat";

/// Make a Debian package.
#[derive(Args)]
pub(crate) struct Dist {
    /// Take this program, and lamppost-compat beside it, and build none
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The version of the package [default: that of the program, and -1]
    #[arg(long, value_name = "VERSION")]
    deb_version: Option<String>,
    /// Where the package is put
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    output: PathBuf,
    /// Compress little, for tests
    #[arg(long)]
    fast: bool,
}

impl Dist {
    pub(crate) fn run(self) -> Result<()> {
        let tool = cargo_deb()?;
        let stage = root().join("target/dist/stage");
        drop(fs::remove_dir_all(&stage));
        fs::create_dir_all(&stage)?;
        let output = root().join(&self.output);
        fs::create_dir_all(&output)?;

        let built = self.binary.clone().map_or_else(build, Ok)?;
        let binary = stage.join("lamppost");
        // Both come from one build.
        for (from, to) in [(&built, &binary), (&built.with_file_name(COMPAT), &stage.join(COMPAT))]
        {
            fs::copy(from, to).with_context(|| format!("no program {}", from.display()))?;
            must(Command::new("strip").arg("--strip-unneeded").arg(to))?;
        }
        let version = match self.deb_version {
            Some(version) => version,
            None => format!("{}-1", version_of(&binary)?),
        };
        gather(&stage, &binary, &version)?;

        let package = output.join(file_name(&version)?);
        // Quiet, as it warns of paths below target/ that it would not build itself. Only the metadata is cargo's: what goes in lies in the stage.
        let mut make = Command::new(tool);
        make.args(["deb", "--quiet", "--no-build", "--package", "lamppost"]);
        make.args(["--deb-version", &version]);
        make.arg("--output").arg(&package).current_dir(root());
        if self.fast {
            make.arg("--fast");
        }
        if let Ok(seconds) = output_of_git(&["log", "-1", "--format=%ct"]) {
            make.env("SOURCE_DATE_EPOCH", seconds);
        }
        must(&mut make)?;
        lint(&package)
    }
}

/// Builds the program as it is shipped.
fn build() -> Result<PathBuf> {
    must(&mut cargo(&["build", "--release", "--locked", "--package", "lamppost"]))?;
    Ok(root().join("target/release/lamppost"))
}

fn version_of(binary: &Path) -> Result<String> {
    let text = output(Command::new(binary).arg("--version"))?;
    let version = text.split_whitespace().nth(1).context("the program tells no version")?;
    Ok(version.to_owned())
}

fn file_name(version: &str) -> Result<String> {
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(format!("lamppost_{version}_{}.deb", architecture.trim()))
}

/// Puts all that the package brings beside the program into the stage.
fn gather(stage: &Path, binary: &Path, version: &str) -> Result<()> {
    output(Command::new(binary).arg("man").arg(stage))?;
    let settings = output(Command::new(binary).args(["init", "-"]))?;
    fs::write(stage.join("lamppost.toml"), settings)?;
    fs::copy(root().join("CHANGELOG.md"), stage.join("changelog"))?;
    let date = match output_of_git(&["log", "-1", "--format=%cD"]) {
        Ok(date) => date,
        Err(_) => output(Command::new("date").arg("-R"))?.trim().to_owned(),
    };
    let entry = format!(
        "lamppost ({version}) unstable; urgency=medium\n\n  \
         * What is new stands in /usr/share/doc/lamppost/changelog.gz.\n\n \
         -- {MAINTAINER}  {date}\n"
    );
    fs::write(stage.join("changelog.Debian"), entry)?;
    Ok(())
}

/// Who signs the Debian changelog; as `maintainer` in crates/lamppost/Cargo.toml.
const MAINTAINER: &str = "The Lamppost authors <maintainers@lamppost.example>";

fn output_of_git(arguments: &[&str]) -> Result<String> {
    Ok(output(Command::new("git").args(arguments).current_dir(root()))?.trim().to_owned())
}

/// The tool, which is installed below target/ where it is missing.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    let tool = root().join("target/tools/bin/cargo-deb");
    let is_there = output(Command::new(&tool).arg("--version"))
        .is_ok_and(|version| version.split_whitespace().any(|word| word == CARGO_DEB));
    if !is_there {
        println!("installing cargo-deb {CARGO_DEB} into target/tools");
        let mut install = cargo(&["install", "cargo-deb", "--quiet", "--locked", "--force"]);
        install.args(["--version", CARGO_DEB, "--root"]).arg(root().join("target/tools"));
        // The workspace's settings are not the tool's.
        must(install.env_remove("CARGO_TARGET_DIR"))?;
    }
    ensure!(tool.exists(), "{} is not there", tool.display());
    Ok(tool)
}

/// Lets Debian's own checker look at the package; its exceptions stand in
/// packaging/debian/lintian-overrides.
fn lint(package: &Path) -> Result<()> {
    if !works(Command::new("lintian").arg("--version")) {
        println!("lintian did not look at it: `cargo xtask setup` installs it");
        return Ok(());
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    must(lintian.arg(package))?;
    println!("lintian has nothing to say against {}", package.display());
    Ok(())
}
