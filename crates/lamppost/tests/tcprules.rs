//! `tcprules` and `tcprulescheck` beside Debian's, over many rules and clients: byte for byte.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::{lamppost, unpacked};

/// Texts and clients that are tried.
const TEXTS: u64 = 150;

/// Numbers that a seed tells.
struct Dice(u64);

impl Dice {
    /// A number below `sides` (xorshift64*).
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn one_of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.roll(words.len())]
    }
}

const ADDRESSES: [&str; 24] = [
    "10.1.2.3",
    "10.1.2.",
    "10.1.",
    "10.",
    "10.1.2.1-5",
    "10.0-2.",
    "10.1-2.2-3",
    "9-11.",
    "10.1.2.250-999",
    "10.1.2.5-1",
    "10.1.-2.",
    "10.1.2.-",
    "10.01-02.",
    "",
    "joe@10.1.2.3",
    "@10.1.2.3",
    "joe@=a.b.test",
    "=a.b.test",
    "=.b.test",
    "=.test",
    "=",
    "=a-b.test",
    " 10.",
    "10.1.2.0/24",
];
const ADDRESSES_6: [&str; 8] = [
    "2001:db8::1",
    "2001:db8:",
    "2001:db8::",
    "2001:",
    "::1",
    ":",
    "joe@2001:db8::1",
    "2001:db8::/32",
];
const VERDICTS: [&str; 3] = ["allow", "deny", "allow"];
const VARIABLES: [&str; 10] = [
    ",A=\"x\"",
    ",RELAYCLIENT=\"\"",
    ",B=/a:deny/",
    ",C=xyx",
    ",,D=\"=\"",
    ",E=\" \"",
    ",=\"\"",
    ",F=\"a\0b\"",
    ",A=\"é\"",
    ",G=\"#\"",
];
const ENDS: [&str; 5] = ["\n", "\n", " \n", "\t \n", ""];
/// The variant for IPv6 does not end on the first four.
const FAULTS: [&str; 14] = [
    "10.1.2.3:reject",
    "10.1.2.3:Allow",
    "10.1.2.3:",
    "a\0b:c",
    "10.1.2.3:allow\r",
    "10.1.2.3:allow ,A=\"x\"",
    "10.1.2.3:deny,A",
    "10.1.2.3:deny,A=",
    "10.1.2.3:deny,A=\"x",
    "10.1.2.3:denyallow",
    "my-host:allow",
    "10.1.2.3-4x:deny",
    "10.1.2.3:allow # all",
    "10.1-2-3.:allow",
];

/// A text of rules; blank lines and lines without a rule only where both originals come to an end.
fn text(dice: &mut Dice, with_ipv6: bool) -> String {
    let mut text = String::new();
    for _ in 0..dice.roll(12) {
        let address = match dice.roll(if with_ipv6 { 4 } else { 3 }) {
            3 => dice.one_of(&ADDRESSES_6),
            _ => dice.one_of(&ADDRESSES),
        };
        let line = match dice.roll(14) {
            0 => "# a comment: allow\n".into(),
            1 if !with_ipv6 => dice.one_of(&["\n", "no rule\n", " \t\n"]).to_owned(),
            2 => format!("{}\n", dice.one_of(if with_ipv6 { &FAULTS[4..] } else { &FAULTS })),
            _ => {
                let variables: String =
                    (0..dice.roll(4)).map(|_| dice.one_of(&VARIABLES)).collect();
                format!("{address}:{}{variables}{}", dice.one_of(&VERDICTS), dice.one_of(&ENDS))
            }
        };
        text.push_str(&line);
        if !text.ends_with('\n') {
            break;
        }
    }
    text
}

fn peer(package: &str, program: &str) -> Command {
    Command::new(unpacked().join(package).join("usr/bin").join(program))
}

/// Calls a program in a folder, for at most a second: one of the originals may not end.
fn call(command: &Command, folder: &Path, input: &[u8]) -> Option<Output> {
    let mut bounded = Command::new("timeout");
    for name in ["TCPREMOTEIP", "TCPREMOTEHOST", "TCPREMOTEINFO"] {
        bounded.env_remove(name);
    }
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    bounded.arg("1").arg(command.get_program()).args(command.get_args()).envs(set);
    bounded.current_dir(folder);
    bounded.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = bounded.spawn().unwrap();
    // One that has ended already does not read.
    drop(child.stdin.take().unwrap().write_all(input));
    let output = child.wait_with_output().unwrap();
    (output.status.code() != Some(124)).then_some(output)
}

/// What came of a call of tcprules: how it ended, what it said, the cdb, and whether the temporary stayed.
type Made = (Option<i32>, Vec<u8>, Vec<u8>, Option<Vec<u8>>, bool);

fn made(command: &Command, text: &[u8]) -> Option<Made> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("cdb"), "before").unwrap();
    let Output { status, stdout, stderr } = call(command, folder.path(), text)?;
    Some((status.code(), stdout, stderr, std::fs::read(at("cdb")).ok(), at("tmp").exists()))
}

fn ours(program: &str) -> Command {
    let mut command = lamppost();
    command.arg(program);
    command
}

#[test]
fn the_cdb_is_the_same_and_so_are_faults() {
    let make = |mut command: Command, text: &str| {
        command.args(["cdb", "tmp"]);
        made(&command, text.as_bytes())
    };
    let (mut taken, mut refused) = (0, 0);
    for seed in 1..=TEXTS {
        for (package, with_ipv6) in [("ucspi-tcp", false), ("ucspi-tcp-ipv6", true)] {
            let text = text(&mut Dice(seed * 2 + u64::from(with_ipv6)), with_ipv6);
            // The variant for IPv6 does not end for every fault.
            let Some(theirs) = make(peer(package, "tcprules"), &text) else { continue };
            assert_eq!(make(ours("tcprules"), &text), Some(theirs.clone()), "{text:?}");
            if theirs.0 == Some(0) { taken += 1 } else { refused += 1 }
        }
    }
    // Each kind was there.
    assert!(taken > 100 && refused > 20, "{taken} {refused}");
    for fault in FAULTS {
        let theirs = make(peer("ucspi-tcp", "tcprules"), fault).unwrap();
        assert_eq!(make(ours("tcprules"), fault), Some(theirs), "{fault:?}");
    }
}

/// A folder with a cdb that has every key there is.
fn rules(folder: &Path, keys: &[&str]) {
    let text: String =
        keys.iter().flat_map(|key| [key, ":allow,KEY=\"", key, "\",A=\"\"\n"]).collect();
    let mut make = ours("tcprules");
    make.args(["rules", "tmp"]);
    assert!(call(&make, folder, text.as_bytes()).unwrap().status.success());
}

/// Clients: addresses, names and users; nothing is no variable at all.
fn client(dice: &mut Dice, command: &mut Command) {
    const IPS: [&str; 12] = [
        "10.1.2.3",
        "10.1.2.4",
        "10.1.3.3",
        "10.2.2.2",
        "11.0.0.1",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8:1::1",
        "2001:db9::",
        "::1",
        "::",
        "",
    ];
    const HOSTS: [&str; 6] = ["a.b.test", "x.a.b.test", "b.test", "test", "", "A.B.test"];
    if dice.roll(8) > 0 {
        command.env("TCPREMOTEIP", dice.one_of(&IPS));
    }
    if dice.roll(2) > 0 {
        command.env("TCPREMOTEHOST", dice.one_of(&HOSTS));
    }
    if dice.roll(2) > 0 {
        command.env("TCPREMOTEINFO", dice.one_of(&["joe", "", "ann"]));
    }
}

#[test]
fn lookups_say_the_same() {
    let mut keys_met = std::collections::BTreeSet::new();
    for seed in 1..=2 * TEXTS {
        let mut dice = Dice(seed);
        let folder = tempfile::tempdir().unwrap();
        let known = [&ADDRESSES[..], &ADDRESSES_6].concat();
        let known: Vec<_> =
            known.into_iter().filter(|key| !key.contains('-') && !key.contains('/')).collect();
        let keys: Vec<_> = known.iter().copied().filter(|_| dice.roll(3) == 0).collect();
        rules(folder.path(), &keys);
        let check = |mut command: Command| {
            client(&mut Dice(seed), &mut command);
            command.arg("rules");
            let Output { status, stdout, stderr } = call(&command, folder.path(), b"").unwrap();
            (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
        };
        let theirs = check(peer("ucspi-tcp-ipv6", "tcprulescheck"));
        assert_eq!(check(ours("tcprulescheck")), theirs, "{keys:?}");
        // The older one knows no IPv6; without it all is the same.
        if !keys.iter().any(|key| key.ends_with(':')) {
            assert_eq!(check(peer("ucspi-tcp", "tcprulescheck")), theirs);
        }
        // What is added changes nothing where there are no networks.
        let mut extended = ours("tcprulescheck");
        extended.arg("-e");
        assert_eq!(check(extended), theirs);
        keys_met.extend(theirs.1.lines().next().map(ToOwned::to_owned));
    }
    assert!(keys_met.len() > 15, "{keys_met:?}");
}

/// A cdb that is cut off or changed.
#[test]
fn damage_is_told_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    rules(folder.path(), &["10.1.2.3", "10.1.2.", "10.", ""]);
    let whole = std::fs::read(folder.path().join("rules")).unwrap();
    let mut dice = Dice(7);
    let mut damaged = 0;
    for round in 0..TEXTS {
        let mut bytes = whole.clone();
        match round {
            0 => bytes.clear(),
            1 => bytes = b"10.:allow\n".repeat(1000),
            _ if round % 2 == 0 => bytes.truncate(dice.roll(whole.len())),
            _ => {
                // A place or a length of the header, so that no key changes.
                let (place, byte) = (dice.roll(256) * 8, dice.roll(256));
                bytes[place..place + 3].fill(u8::try_from(byte).unwrap());
            }
        }
        std::fs::write(folder.path().join("rules"), bytes).unwrap();
        let check = |mut command: Command| {
            command.env("TCPREMOTEIP", "10.1.2.4").arg("rules");
            let Output { status, stdout, stderr } = call(&command, folder.path(), b"").unwrap();
            (status.code(), stdout, String::from_utf8(stderr).unwrap())
        };
        let theirs = check(peer("ucspi-tcp", "tcprulescheck"));
        damaged += u32::from(theirs.0 == Some(111));
        assert_eq!(check(ours("tcprulescheck")), theirs, "round {round}");
    }
    assert!(damaged > 30, "{damaged}");
}

#[test]
fn files_that_cannot_be_used_are_told_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let calls: [(&str, &[&str]); 13] = [
        ("tcprules", &[]),
        ("tcprules", &["cdb"]),
        ("tcprules", &["cdb", "tmp", "more"]),
        ("tcprules", &["cdb", "gone/tmp"]),
        ("tcprules", &["gone/cdb", "tmp"]),
        ("tcprules", &["cdb", "folder"]),
        ("tcprules", &["folder", "tmp"]),
        ("tcprules", &["cdb", "file/tmp"]),
        ("tcprules", &["cdb", "/dev/full"]),
        ("tcprulescheck", &[]),
        ("tcprulescheck", &["gone"]),
        ("tcprulescheck", &["file/gone"]),
        ("tcprulescheck", &["file"]),
    ];
    for (program, arguments) in calls {
        let check = |mut command: Command| {
            command.args(arguments);
            let Output { status, stdout, stderr } =
                call(&command, folder.path(), b"10.:allow\n").unwrap();
            (status.code(), stdout, String::from_utf8(stderr).unwrap())
        };
        assert_eq!(
            check(ours(program)),
            check(peer("ucspi-tcp", program)),
            "{program} {arguments:?}"
        );
    }
}

/// Both under the old names, put into a folder: the recipe's line runs with ours in their place.
#[test]
fn they_go_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let to: PathBuf = folder.path().join("bin");
    std::fs::create_dir(&to).unwrap();
    let mut install = lamppost();
    install.args(["compat", "install"]).arg(&to).args(["tcprules", "tcprulescheck"]);
    let installed =
        support::succeeded(&install.arg("--state").arg(folder.path()).output().unwrap());
    assert_eq!(installed.lines().count(), 2, "{installed}");
    std::fs::write(folder.path().join("tcp.smtp"), "127.:allow,RELAYCLIENT=\"\"\n:allow\n")
        .unwrap();
    let mut recipe = Command::new("sh");
    recipe.env("PATH", format!("{}:/usr/bin:/bin", to.display())).current_dir(folder.path());
    recipe.args(["-c", "tcprules tcp.smtp.cdb tcp.smtp.temp < tcp.smtp && TCPREMOTEIP=127.0.0.1 tcprulescheck tcp.smtp.cdb"]);
    let told = support::succeeded(&recipe.output().unwrap());
    assert_eq!(told, "rule 127.:\nset environment variable RELAYCLIENT=\nallow connection\n");
    let theirs =
        peer("ucspi-tcp", "tcprulescheck").arg(folder.path().join("tcp.smtp.cdb")).output();
    assert_eq!(theirs.unwrap().stdout, b"rule :\nallow connection\n");
}

#[test]
fn with_e_more_is_understood_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let make = |text: &str| {
        let mut command = ours("tcprules");
        command.args(["-e", "cdb", "tmp"]);
        let output = call(&command, folder.path(), text.as_bytes()).unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(make("192.0.2.0/24:deny # all of it\n"), (Some(0), String::new()));
    let mut check = ours("tcprulescheck");
    check.args(["-e", "cdb"]).env("TCPREMOTEIP", "192.0.2.7");
    assert_eq!(
        call(&check, folder.path(), b"").unwrap().stdout,
        b"rule 192.0.2.0/24:\ndeny connection\n"
    );
    // To Debian's it is a key that nobody has.
    let mut theirs = peer("ucspi-tcp", "tcprulescheck");
    theirs.arg("cdb").env("TCPREMOTEIP", "192.0.2.7");
    assert_eq!(call(&theirs, folder.path(), b"").unwrap().stdout, b"default:\nallow connection\n");
    let before = std::fs::read(folder.path().join("cdb")).unwrap();
    let (code, told) = make(":allow\n192.0.2.7/24:deny\n");
    assert_eq!(code, Some(100));
    let expected = "tcprules: fatal: line 2, column 1: the address is not the first of its network, which is 192.0.2.0/24\n  help: write 192.0.2.0/24\n  192.0.2.7/24:deny\n";
    assert_eq!(told, expected);
    assert_eq!(std::fs::read(folder.path().join("cdb")).unwrap(), before);
    let (code, told) = make("10.0.0.1 allow\n");
    assert_eq!(code, Some(100));
    assert!(told.starts_with("tcprules: fatal: line 1, column 1: a rule has a colon"), "{told}");
    let (code, told) = make(" 10.:allow\n");
    let expected = "tcprules: warning: line 1: its key has a blank, and no client matches it\n";
    assert_eq!((code, told.as_str()), (Some(0), expected));
}
