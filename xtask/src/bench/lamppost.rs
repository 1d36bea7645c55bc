//! Lamppost as it is measured: durable defaults, no greylisting, no delay before the greeting.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::{Server, await_port, write};
use crate::machine::{cargo, must, root};

const ADDRESS: &str = "127.0.0.1:22525";

pub(super) struct Lamppost {
    child: Child,
    state: PathBuf,
}

/// Builds what users run.
pub(super) fn build() -> Result<()> {
    must(&mut cargo(&["build", "--release", "--package", "lamppost"]))
}

impl Lamppost {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (config, password) = (folder.join("lamppost.toml"), folder.join("password"));
        write(
            &config,
            &format!(
                "[server]\nhostname = \"mail.lamppost.test\"\n[log]\nlevel = \"info\"\n[metrics]\nlisten = []\n\
                 [mail]\ndomains = [\"lamppost.test\"]\n[mail.greylist]\nenabled = false\n\
                 [mail.limits]\ngreeting-delay = \"0s\"\nsessions-per-address-max = 1000\n\
                 [[mail.listen]]\naddress = [\"{ADDRESS}\"]\ntls = \"off\"\n"
            ),
        )?;
        write(&password, "only for this measurement\n")?;
        let state = folder.join("state");
        let program = root().join("target/release/lamppost");
        let lamppost = || {
            let mut command = Command::new(&program);
            command.arg("--config").arg(&config).arg("--state").arg(&state);
            command
        };
        let mut add = lamppost();
        add.args(["account", "add", "demo@lamppost.test", "--password-file"]).arg(&password);
        must(add.stdout(Stdio::null()))?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut run = lamppost();
        let child = run
            .arg("run")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run Lamppost")?;
        let server = Self { child, state };
        await_port(ADDRESS)?;
        Ok(server)
    }
}

impl Server for Lamppost {
    fn address(&self) -> String {
        ADDRESS.into()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn new_folder(&self) -> PathBuf {
        self.state.join("mail/lamppost.test/demo/Maildir/new")
    }
}

impl Drop for Lamppost {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
