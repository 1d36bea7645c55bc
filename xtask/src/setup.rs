//! What the tests need beside Rust: installed where that is allowed, otherwise told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::dist;
use crate::machine::{must, output, root, unpacked, works};

/// Programs that the tests call, each with the Debian package that brings it and a command that
/// works once it is there.
const PROGRAMS: [(&str, &[&str]); 14] = [
    ("swaks", &["swaks", "--version"]),
    ("libnet-ssleay-perl", &["perl", "-MNet::SSLeay", "-e", "1"]),
    ("curl", &["curl", "--version"]),
    ("python3", &["python3", "--version"]),
    ("nodejs", &["node", "--version"]),
    ("strace", &["strace", "--version"]),
    ("e2fsprogs", &["/usr/sbin/mkfs.ext4", "-V"]),
    ("xfsprogs", &["/usr/sbin/mkfs.xfs", "-V"]),
    ("binutils", &["strip", "--version"]),
    ("debootstrap", &["/usr/sbin/debootstrap", "--version"]),
    ("lintian", &["lintian", "--version"]),
    ("systemd-container", &["systemd-nspawn", "--version"]),
    ("gcc-aarch64-linux-gnu", &["aarch64-linux-gnu-gcc", "--version"]),
    ("libc6-dev-arm64-cross", &["test", "-e", "/usr/aarch64-linux-gnu/include/stdio.h"]),
];

/// A folder below `target/peers`, its packages, and a file that tells that they are there.
type Unpacked = (&'static str, &'static [&'static str], &'static str);

/// Packages that are unpacked below `target/peers` and not installed: Postfix would replace the
/// machine's mail server, the two of ucspi-tcp exclude each other, and of the others only some files are wanted. Each has a folder and a file
/// in it that tells that it is there.
const UNPACKED: &[Unpacked] = &[
    POSTFIX,
    EXIM,
    MARIADB,
    POSTGREY,
    SQLGREY,
    ("nodemailer", &["node-nodemailer"], "usr/share/nodejs/nodemailer/package.json"),
    ("spamassassin", &["spamassassin"], "usr/share/doc/spamassassin/examples/sample-spam.txt"),
    ("rbldnsd", &["rbldnsd"], "usr/sbin/rbldnsd"),
    ("nsd", &["nsd", "libevent-2.1-7", "libfstrm0", "libprotobuf-c1"], "usr/sbin/nsd"),
    ("pyspf", &["python3-spf", "python3-dns"], "usr/lib/python3/dist-packages/spf.py"),
    ("tinydns", &["tinydns"], "usr/sbin/tinydns"),
    ("ucspi-tcp", &["ucspi-tcp"], "usr/bin/tcprules"),
    ("ucspi-tcp-ipv6", &["ucspi-tcp-ipv6"], "usr/bin/tcprules"),
    ("python", &["libpython3.11-testsuite"], "usr/lib/python3.11/test/test_email/data/msg_01.txt"),
];

const POSTFIX: Unpacked = (
    "postfix",
    &["postfix", "libdb5.3", "libicu72", "libnsl2", "libsasl2-2", "libtirpc3"],
    "usr/sbin/smtp-source",
);
const EXIM: Unpacked = (
    "exim",
    &[
        "exim4-daemon-light",
        "libdb5.3",
        "libevent-2.1-7",
        "libgnutls-dane0",
        "libidn12",
        "libnsl2",
        "libtirpc3",
        "libunbound8",
    ],
    "usr/sbin/exim4",
);
const MARIADB: Unpacked = (
    "mariadb",
    &[
        "mariadb-server-core",
        "mariadb-client-core",
        "libaio1",
        "libedit2",
        "libmariadb3",
        "libncurses6",
        "libnuma1",
        "liburing2",
    ],
    "usr/sbin/mariadbd",
);
const POSTGREY: Unpacked = (
    "postgrey",
    &[
        "postgrey",
        "db5.3-util",
        "libberkeleydb-perl",
        "libdb5.3",
        "libio-multiplex-perl",
        "libnet-server-perl",
        "libnetaddr-ip-perl",
    ],
    "usr/sbin/postgrey",
);
const SQLGREY: Unpacked = (
    "sqlgrey",
    &[
        "sqlgrey",
        "libdbd-mysql-perl",
        "libdbd-sqlite3-perl",
        "libdbi-perl",
        "libio-multiplex-perl",
        "libmariadb3",
        "libnet-server-perl",
    ],
    "usr/sbin/sqlgrey",
);
const RBLDNSD: Unpacked = ("rbldnsd", &["rbldnsd"], "usr/sbin/rbldnsd");
const UCSPI_TCP: Unpacked = ("ucspi-tcp", &["ucspi-tcp"], "usr/bin/tcprules");
/// What the benchmarks need: the peers, and what makes an XFS.
const PEERS: &[Unpacked] = &[
    POSTFIX,
    EXIM,
    (
        "opensmtpd",
        &["opensmtpd", "libdb5.3", "libevent-2.1-7", "libpam0g"],
        "usr/libexec/opensmtpd/mail.maildir",
    ),
    ("xfsprogs", &["xfsprogs", "libinih1", "liburcu8"], "sbin/mkfs.xfs"),
];

/// Installs and unpacks what is missing.
pub(crate) fn run() -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(_, command)| !works(Command::new(command[0]).args(&command[1..])))
        .map(|(package, _)| *package)
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    unpack_missing(UNPACKED)?;
    gather_samples()?;
    dist::cargo_deb()?;
    debians()?;
    if !has_arm64() {
        // Where Rust did not come by rustup, or nothing can be fetched, that is not compiled, and told.
        works(Command::new("rustup").args(["target", "add", ARM64]));
    }
    println!("everything that the tests need is there");
    Ok(())
}

/// The other machine that packages are made for.
pub(crate) const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Whether Rust knows how to compile for it.
pub(crate) fn has_arm64() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", ARM64]);
    output(&mut rustc).is_ok_and(|folder| Path::new(folder.trim()).exists())
}

/// Unpacks what the benchmarks need; strace counts their syncs.
pub(crate) fn peers() -> Result<()> {
    if !works(Command::new("strace").arg("--version")) {
        install(&["strace"])?;
    }
    unpack_missing(PEERS)
}

/// Unpacks what the comparison of greylists needs.
pub(crate) fn greylist_peers() -> Result<()> {
    unpack_missing(&[MARIADB, POSTGREY, SQLGREY])
}

/// Unpacks what the comparison of those that let clients in needs.
pub(crate) fn admission_peers() -> Result<()> {
    unpack_missing(&[POSTFIX, RBLDNSD, UCSPI_TCP])
}

fn unpack_missing(wanted: &[Unpacked]) -> Result<()> {
    for &(folder, packages, proof) in wanted {
        if !unpacked().join(folder).join(proof).exists() {
            unpack(folder, packages, proof)?;
        }
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    println!("installing {}", packages.join(" "));
    let script = format!(
        "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {}",
        packages.join(" ")
    );
    if is_root()? {
        return must(Command::new("sh").args(["-c", &script]));
    }
    if works(Command::new("sudo").args(["-n", "true"])) {
        return must(Command::new("sudo").args(["-n", "sh", "-c", &script]));
    }
    bail!(
        "the tests need packages that only root may install; run this, then try again:\n  sudo sh -c '{script}'"
    )
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// The Debians in which the package is tried: a folder below `target/peers`, and the release.
const DEBIANS: [(&str, &str); 2] = [("debian12", "bookworm"), ("debian13", "trixie")];

/// Makes small Debians in which the package is installed, upgraded and removed. Only root can, and
/// where no mirror answers there is none; the test says then that it was not run.
fn debians() -> Result<()> {
    for (folder, release) in DEBIANS {
        let target = unpacked().join(folder);
        if target.exists() {
            continue;
        }
        if !is_root()? {
            println!("no Debian is made to try the package in: only root can");
            return Ok(());
        }
        println!("making a Debian in target/peers/{folder}");
        let unfinished = unpacked().join(format!("{folder}.unfinished"));
        drop(fs::remove_dir_all(&unfinished));
        let mut make = Command::new("/usr/sbin/debootstrap");
        make.args(["--variant=minbase", "--include=systemd,init-system-helpers", release]);
        if let Err(error) = output(make.arg(&unfinished)) {
            println!("it cannot be made: {error:#}");
            continue;
        }
        // The test copies all that is there.
        for bulk in ["var/cache/apt/archives", "var/lib/apt/lists", "usr/share/locale"] {
            fs::remove_dir_all(unfinished.join(bulk))?;
        }
        fs::rename(&unfinished, &target)?;
    }
    Ok(())
}

/// Downloads packages, which needs no root, and unpacks them into a folder of the checkout.
fn unpack(folder: &str, packages: &[&str], proof: &str) -> Result<()> {
    println!("unpacking {} into target/peers/{folder}", packages.join(" "));
    let target = unpacked().join(folder);
    let downloads = target.join("packages");
    fs::create_dir_all(&downloads)
        .with_context(|| format!("cannot make {}", downloads.display()))?;
    let mut download = Command::new("apt-get");
    download.args(["-qq", "download"]).args(packages).current_dir(&downloads);
    if output(&mut download).is_err() {
        // Without package lists nothing can be downloaded.
        install(&[])?;
        output(&mut download)?;
    }
    for entry in fs::read_dir(&downloads)? {
        let package = entry?.path();
        must(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&target))?;
    }
    fs::remove_dir_all(&downloads)?;
    let proof = target.join(proof);
    ensure!(proof.exists(), "{} is not in the package", proof.display());
    Ok(())
}

/// Copies the sample messages of Python's email tests and of spamassassin into one folder.
fn gather_samples() -> Result<()> {
    let target = unpacked().join("samples");
    fs::create_dir_all(&target)?;
    let python = unpacked().join("python/usr/lib/python3.11/test/test_email/data");
    let spamassassin = unpacked().join("spamassassin/usr/share/doc/spamassassin/examples");
    for (prefix, folder) in [("python", python), ("spamassassin", spamassassin)] {
        for sample in texts(&folder)? {
            let name = sample.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fs::copy(&sample, target.join(format!("{prefix}-{name}")))?;
        }
    }
    Ok(())
}

fn texts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "txt")).collect())
}

/// Postfix as it was unpacked.
pub(crate) fn postfix() -> PathBuf {
    root().join("target/peers/postfix")
}
