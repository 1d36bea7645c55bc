//! File systems made for a test: images on loop devices, and small ones in memory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// ext4 with a journal, on a loop device.
    Ext4,
    /// XFS, on a loop device.
    Xfs,
    /// In memory, of so many MiB.
    Tmpfs(u32),
}

/// A mounted file system. It is unmounted when it is dropped.
pub(crate) struct Mounted {
    kind: Kind,
    folder: TempDir,
}

impl Mounted {
    /// Makes and mounts a file system; tells why when this machine does not let us.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        let mounted = Self { kind, folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(mounted.point()).unwrap();
        if !matches!(kind, Kind::Tmpfs(_)) {
            let image = std::fs::File::create(mounted.image()).unwrap();
            // XFS makes nothing smaller. The image has holes.
            image.set_len(320 * 1024 * 1024).unwrap();
        }
        let made = match kind {
            Kind::Ext4 => run(Command::new("/usr/sbin/mkfs.ext4")
                .args(["-q", "-F", "-O", "has_journal"])
                .arg(mounted.image())),
            Kind::Xfs => run(Command::new("/usr/sbin/mkfs.xfs").arg("-q").arg(mounted.image())),
            Kind::Tmpfs(_) => Ok(()),
        };
        made.expect("`cargo xtask setup` installs what makes file systems");
        match mounted.mount() {
            Ok(()) => Some(mounted),
            Err(error) => {
                let words =
                    ["permission", "permitted", "superuser", "loop device", "unknown filesystem"];
                let is_refused = words.iter().any(|word| error.to_lowercase().contains(word));
                assert!(is_refused, "{error}");
                if !matches!(kind, Kind::Tmpfs(_)) || !in_namespace() {
                    skipped(&format!("no file system can be mounted here: {}", error.trim()));
                }
                None
            }
        }
    }

    /// The same file system as it is on the device at this moment, mounted elsewhere: what was not
    /// written out is not in it. Nobody may write meanwhile.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self { kind: self.kind, folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(copy.point()).unwrap();
        let mut command = Command::new("cp");
        run(command.arg("--sparse=always").arg(self.image()).arg(copy.image())).unwrap();
        copy.mount().unwrap();
        copy
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        match self.kind {
            // Nothing is written out by itself while a test runs.
            Kind::Ext4 => command.args(["-t", "ext4", "-o", "loop,commit=300"]).arg(self.image()),
            // A copy has the name of its original.
            Kind::Xfs => command.args(["-t", "xfs", "-o", "loop,nouuid"]).arg(self.image()),
            Kind::Tmpfs(size) => {
                command.args(["-t", "tmpfs", "-o", &format!("size={size}m"), "lamppost-test"])
            }
        };
        run(command.arg(self.point()))
    }

    /// Unmounts it and mounts it again, as after a crash of the machine.
    ///
    /// A copy of the image is mounted: where another process has taken our mounts into a namespace of
    /// its own, the file system that went down would still be there, and be given to us again.
    pub(crate) fn mount_again(&self) {
        run(Command::new("umount").arg(self.point())).unwrap();
        let fresh = self.folder.path().join("fresh");
        run(Command::new("cp").arg("--sparse=always").arg(self.image()).arg(&fresh)).unwrap();
        std::fs::rename(fresh, self.image()).unwrap();
        self.mount().unwrap();
    }

    /// Takes the file system down as a power cut does: what is not on the device by now is lost, and
    /// everything fails until it is mounted again (`FS_IOC_SHUTDOWN` without a flush of the log).
    ///
    /// Nobody may sync meanwhile: ext4's `fdatasync` can return 0 when its journal ends at that very
    /// moment without a commit, which no machine without power would tell anybody.
    pub(crate) fn cut_power(&self) {
        let mut command = Command::new("/usr/sbin/xfs_io");
        run(command.args(["-x", "-c", "shutdown"]).arg(self.point())).unwrap();
    }

    /// Ends the journal of ext4 as an error does: the file system is read-only from now on. Nobody
    /// may sync meanwhile, see [`Mounted::cut_power`].
    pub(crate) fn abort(&self) {
        let mut command = Command::new("mount");
        run(command.args(["-o", "remount,abort"]).arg(self.point())).unwrap();
    }

    /// Mounts it with other options, such as `ro`.
    pub(crate) fn remount(&self, options: &str) -> Result<(), String> {
        let options = format!("remount,{options}");
        let mut command = Command::new("mount");
        command.args(["-o", &options]);
        if matches!(self.kind, Kind::Tmpfs(_)) {
            // With a source, no other options are looked up: those of a namespace mean nothing in it.
            command.arg("lamppost-test");
        }
        run(command.arg(self.point()))
    }

    /// Takes space; at most so many bytes, or all that is there.
    pub(crate) fn fill(&self, bytes: u64) -> PathBuf {
        let path = self.point().join("filler");
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        let piece = vec![0; 64 * 1024];
        let mut left = bytes;
        let mut length = piece.len();
        while left > 0 && length > 0 {
            match file.write(&piece[..length.min(usize::try_from(left).unwrap_or(usize::MAX))]) {
                Ok(written) => left -= written as u64,
                // The last bytes go one by one.
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                    length /= 2;
                }
            }
        }
        path
    }

    /// Where it is.
    pub(crate) fn point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Flushes of its device since it was mounted.
    pub(crate) fn flushes(&self) -> u64 {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let point = self.point();
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let device = words.next()?;
            (Path::new(words.next()?) == point).then(|| device.trim_start_matches("/dev/"))
        });
        let stat = format!("/sys/block/{}/stat", device.unwrap());
        let stat = std::fs::read_to_string(stat).unwrap();
        // Documentation/block/stat.rst: the sixteenth figure.
        stat.split_whitespace().nth(15).unwrap().parse().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let point = self.point();
        if run(Command::new("umount").arg(&point)).is_err() {
            drop(run(Command::new("umount").arg("--lazy").arg(&point)));
        }
    }
}

/// A test that this machine cannot run says so: in its own output, and in a file that `cargo xtask test`
/// shows at its end. Where `LAMPPOST_REQUIRE_MOUNTS` is 1 it fails.
pub(crate) fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let line = format!("skipped: {test}: {why}\n");
    let is_required = std::env::var("LAMPPOST_REQUIRE_MOUNTS").is_ok_and(|value| value == "1");
    assert!(!is_required, "{line}LAMPPOST_REQUIRE_MOUNTS=1 wants it to run");
    print!("{line}");
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped-tests");
    let list = std::fs::File::options().create(true).append(true).open(list);
    list.and_then(|mut list| list.write_all(line.as_bytes())).unwrap();
}

/// Runs the test that asks once more where its user may mount file systems in memory: in a namespace
/// of its own. False where there are none.
fn in_namespace() -> bool {
    const INSIDE: &str = "LAMPPOST_TEST_IN_NAMESPACE";
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--"]);
        command
    };
    if std::env::var_os(INSIDE).is_some() || run(unshare().arg("true")).is_err() {
        return false;
    }
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("1 passed"), "{told}");
    println!("ran in a namespace of its own:\n{told}");
    true
}

/// Runs a command; what it complained of is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
}

/// The line of `[mail.queue]` without which a spool in memory is refused, where this is one and the
/// program knows the line.
pub(crate) fn volatile_line(state: &Path) -> &'static str {
    /// `statfs(2)`: `TMPFS_MAGIC`.
    const TMPFS: u64 = 0x0102_1994;
    let kind = rustix::fs::statfs(state).map(|stat| stat.f_type.cast_unsigned());
    if kind != Ok(TMPFS) {
        return "";
    }
    let defaults = super::lamppost().args(["config", "defaults"]).output().unwrap();
    let is_known = String::from_utf8_lossy(&defaults.stdout).contains("accept-volatile");
    if is_known { "accept-volatile = true" } else { "" }
}
